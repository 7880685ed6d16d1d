"""The way in: which command is meant, and what becomes of errors. A command is imported once it is named.

So the overview, the version and the lists of methods do not wait for torch.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from shutil import get_terminal_size
from textwrap import fill
from types import MappingProxyType
from typing import Any

from rich.console import Console
from rich.text import Text

from tutelage.errors import Notice, UserError, unknown
from tutelage.system.console import screen
from tutelage.system.interrupt import Interrupted
from tutelage.version import VERSION


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        place: Where its function is: `package.module:function`.
        summary: The first line of the function's docstring.
    """

    place: str
    summary: str

    def function(self) -> Callable[[Sequence[str]], None]:
        """Import the function. Its argument is what was typed after the command."""
        module, _, name = self.place.partition(":")
        found: Callable[[Sequence[str]], None] = getattr(import_module(module), name)
        return found


HEAVY, LIGHT, SERVING = "tutelage.cli.commands", "tutelage.cli.listing", "tutelage.cli.serving"
EXPORTING = "tutelage.cli.exporting"
SYNTHETIC = "tutelage.cli.synthetic"
COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "demo": Command(
            f"{HEAVY}:demo",
            "See distillation at work: five methods, three seeds, real digits, two minutes.",
        ),
        "distill": Command(f"{HEAVY}:distill", "Train a student by one method, and save its weights and a report."),
        "compare": Command(
            f"{HEAVY}:compare", "Compare methods over several seeds, with the plain student beside them."
        ),
        "evaluate": Command(
            f"{HEAVY}:evaluate_command",
            "Measure a network, or several as an ensemble, on a dataset: accuracy, likelihood, calibration, "
            "uncertainty.",
        ),
        "predict": Command(
            f"{HEAVY}:predict_command",
            "Write what a network, or several as an ensemble, answers to images or texts without labels.",
        ),
        "record": Command(
            f"{HEAVY}:record",
            "Record a teacher's answers to views of the training images, to train later without the teacher.",
        ),
        "serve": Command(f"{SERVING}:serve", "Serve a network over HTTP, by the Open Inference Protocol."),
        "export": Command(
            f"{EXPORTING}:export_command",
            "Write a trained network to files that run without Tutelage, checked and scored on real samples.",
        ),
        "search": Command(
            f"{HEAVY}:search", "Look for a student in a space of networks, by scores that need no training."
        ),
        "synthesize": Command(
            f"{SYNTHETIC}:synthesize_command", "Make a dataset of images from a trained network alone, without data."
        ),
        "similarity": Command(
            f"{SYNTHETIC}:similarity_command",
            "Rank datasets by how near they are to what a network was trained on, from its batch norms alone.",
        ),
        "report": Command(f"{HEAVY}:report", "Write the HTML report of a comparison or a run again."),
        "doctor": Command(
            f"{HEAVY}:doctor",
            "Find problems before hours are spent: teacher, shapes, loss scales, time, memory.",
        ),
        "methods": Command(f"{LIGHT}:methods", "List the methods, with what each needs and where it comes from."),
        "cite": Command(f"{LIGHT}:cite", "Print the BibTeX of the papers behind methods."),
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0, 2 for an error of the user, 128 + signal after an interruption."""
    words = list(sys.argv[1:] if argv is None else argv)
    # Messages go to stderr, so that what a command prints can be piped.
    errors = screen(stderr=True)
    try:
        with _telling(errors):
            _run(words)
    except UserError as error:
        errors.print(Text.assemble(("error:", "bold red"), " ", str(error)), soft_wrap=True)
        return 2
    except Interrupted as stop:
        errors.print(str(stop), soft_wrap=True)
        # As a shell reports a process that a signal ended.
        return 128 + stop.signal
    except KeyboardInterrupt:
        errors.print("Stopped. What was finished is kept; run the same command again to continue.", soft_wrap=True)
        # 128 and the number of SIGINT.
        return 130
    except BrokenPipeError:
        # The reader of a pipe, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


@contextmanager
def _telling(console: Console) -> Iterator[None]:
    """Print notices as plain lines; Python would show them as warnings with a place in the code."""
    with warnings.catch_warnings():
        # Python shows a warning once for each place in the code, and one place has notices about several things.
        warnings.simplefilter("always", Notice)
        usual, said = warnings.showwarning, set[str]()

        def show(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
            if not issubclass(category, Notice):
                usual(message, category, *where, **options)
            elif str(message) not in said:
                said.add(str(message))
                console.print(Text.assemble(("note:", "yellow"), " ", str(message)), soft_wrap=True)

        warnings.showwarning = show
        yield


def _run(words: Sequence[str]) -> None:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
    elif words[0] in ("-V", "--version"):
        print(f"tutelage {VERSION}")
    elif words[0] in COMMANDS:
        COMMANDS[words[0]].function()(words[1:])
    else:
        raise unknown("command", words[0], COMMANDS)


def _overview() -> str:
    # An unknown width, as in a pipe, counts as 80 columns.
    width = get_terminal_size().columns
    lines = [
        fill(command.summary, width, initial_indent=f"  {name:<10} ", subsequent_indent=" " * 13)
        for name, command in COMMANDS.items()
    ]
    about = "Knowledge distillation for PyTorch: any teacher, any student, honest comparisons."
    return "\n".join([about, "", "usage: tutelage COMMAND ...", "", *lines, "", "Each has --help with examples."])
