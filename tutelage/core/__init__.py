"""What a method is made of: updates, teachers, pairs of layers, schedules, and its registration."""
