"""Preflight."""


def examine(choice, experiment, training):  # replaced below
    return "ok"
