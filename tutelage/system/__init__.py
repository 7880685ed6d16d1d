"""Files, processes, signals, memory, random numbers, devices, and what a person sees."""
