"""Scores of untrained networks, and their register."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from docstring_parser import parse as parse_docstring

from tutelage.core.registry import Paper
from tutelage.data.offers import Offer
from tutelage.errors import UserError, unknown
from tutelage.searching.candidate import Candidate
from tutelage.system.grammar import literal, read
from tutelage.system.values import check_all

S = TypeVar("S", bound="type[Score]")


class Score(ABC):
    """Scores networks before training: the higher, the better a student.

    A subclass computes `terms`, each a number; the score is their weighted sum. Its arguments are options.

    Attributes:
        weights: The weight of each term.
        needs_teacher: Whether networks are compared with a teacher.
        reads: What it needs of the data beside inputs.
        trained_teacher: Whether the teacher keeps its trained weights; else it has fresh ones like the candidates.
        advice: What a user can do if no candidate can be scored.
    """

    needs_teacher: ClassVar[bool] = False
    reads: frozenset[Offer] = frozenset()
    trained_teacher: bool = False
    advice: str = ""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = dict(weights)

    def learn(self, teacher: Candidate) -> None:  # noqa: B027 - scores that compare nothing learn nothing
        """Keep what candidates are compared with. It is called once, before any candidate."""

    @abstractmethod
    def terms(self, candidate: Candidate) -> dict[str, float]:
        """Return the terms of a network by name.

        Raises:
            UserError: If it cannot be scored. The message is half a sentence that says why.
        """

    def total(self, terms: Mapping[str, float]) -> float:
        """Return the score that the terms make."""
        return sum(self.weights[name] * value for name, value in terms.items())


@dataclass(frozen=True)
class ScoreEntry:
    """A registered score.

    Attributes:
        name: Its name on the command line.
        build: Its class.
        papers: The papers that it comes from.
    """

    name: str
    build: type[Score]
    papers: Sequence[Paper]

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (parse_docstring(inspect.getdoc(self.build) or "").short_description or self.name).rstrip(".")

    @property
    def options(self) -> dict[str, Any]:
        """Its options with their defaults."""
        return {name: p.default for name, p in inspect.signature(self.build).parameters.items()}


REGISTERED: dict[str, ScoreEntry] = {}
"""The scores registered so far, by name."""


def register_score(name: str, *, papers: Sequence[Paper] = ()) -> Callable[[S], S]:
    """Register a score under its command-line name.

    Args:
        name: Its name, in kebab case.
        papers: The papers that it comes from.

    Raises:
        ValueError: If the name is taken.
    """

    def decorate(build: S) -> S:
        known = REGISTERED.get(name)
        # Registering the same class again does no harm.
        if known is not None and known.build is not build:
            raise ValueError(f"A score named {name!r} is already registered: {known.build}")
        REGISTERED[name] = ScoreEntry(name, build, tuple(papers))
        return build

    return decorate


def score_named(text: str) -> Score:
    """Return the score that a text names.

    Args:
        text: `diswot`, with options `diswot:variant=code,semantic=0`, or an import path `package.module:Class`.

    Raises:
        UserError: If the score or an option is unknown, or a value does not fit.
    """
    written = read(text.strip(), kind="score", before=":,")
    name = written.name.removesuffix(":").rstrip()
    entry = _entry(name)
    for option in written.options:
        if option not in entry.options:
            if not entry.options:
                raise UserError(f"The score {entry.name} has no options, so it cannot take {option}=.")
            raise unknown(f"option of {entry.name}", option, entry.options)
    options = {option: literal(value) for option, value in written.options.items()}
    check_all(options, entry.build, of=f"the score {entry.name}")
    return entry.build(**options)


def _entry(name: str) -> ScoreEntry:
    if name in REGISTERED:
        return REGISTERED[name]
    if ":" not in name:
        raise unknown("score", name, REGISTERED)
    module, _, attribute = name.partition(":")
    found = _imported(module, attribute, name)
    return next((entry for entry in REGISTERED.values() if entry.build is found), ScoreEntry(name, found, ()))


def _imported(module: str, attribute: str, name: str) -> type[Score]:
    from importlib import import_module

    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"The score {name!r} cannot be imported: {error}. Write it package.module:Class.") from error
    if not (isinstance(found, type) and issubclass(found, Score)):
        raise UserError(f"{name!r} is no score: a score is a subclass of tutelage.searching.scoring.Score.")
    return found
