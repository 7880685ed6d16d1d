"""The parts of a method: updates, teachers, pairs of layers, schedules, and registration."""
