"""Recordings: a teacher's answers to views of the data, written to disk once and replayed for the same pixels."""
