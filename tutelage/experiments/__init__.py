"""Experiments: each method trained with each seed, and the rows and paired differences that come of it."""
