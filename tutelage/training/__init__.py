"""The training loop and what surrounds it: settings, decisions, checkpoints, runs."""
