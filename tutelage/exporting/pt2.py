"""A network as a program of PyTorch, which runs wherever PyTorch does, without the network's code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.exporting.program import capture
from tutelage.exporting.target import Subject, Target, named_inputs


class Pt2(Target):
    """`torch.export.load("model.pt2").module()` is the network; `class_names.json` within it has the classes."""

    name = "pt2"
    filename = "model.pt2"

    def write(self, subject: Subject, place: Path) -> None:
        """Write the captured program, with the class names and the other facts beside it in the file."""
        extra = {"class_names.json": json.dumps(subject.class_names), "facts.json": json.dumps(dict(subject.facts))}
        torch.export.save(capture(subject), place, extra_files=extra)

    def load(self, place: Path) -> nn.Module:
        """Return the program as a module."""
        return Program(torch.export.load(place).module())


class Program(nn.Module):
    """A loaded program that takes inputs by name or images, as networks do.

    Args:
        program: What `torch.export` loads.
    """

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def train(self, mode: bool = True) -> Program:
        """Stay as exported: a program has no training mode."""
        return self

    def forward(self, inputs: Any = None, **named: Any) -> Tensor:
        """Return the logits."""
        found: Tensor = self.program(*named_inputs(named or inputs).values())
        return found
