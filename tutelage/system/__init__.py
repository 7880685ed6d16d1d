"""Files, processes, signals, memory, random numbers, devices, and console output."""
