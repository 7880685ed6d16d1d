"""The command line: what is typed, and what that asks for."""
