"""The register of methods: name, papers, family and arguments of each."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

from docstring_parser import parse as parse_docstring

from tutelage.data.offers import EVERYTHING, Offer

T = TypeVar("T", bound=Callable[..., Any])
L = TypeVar("L", bound="Listing")

FIXTURES = frozenset(
    {
        "run",
        "student",
        "students",
        "make_student",
        "teacher",
        "make_teacher",
        "data",
        "example",
        "num_classes",
        "batch_size",
        "epochs",
        "reporter",
        "distill",
    }
)
"""Arguments that the builder passes by name; every other argument of a method is a hyper-parameter."""

Trains = Literal["student", "teacher"]
Family = Literal[
    "labels",
    "logits",
    "self",
    "peers",
    "features",
    "relations",
    "ensembles",
    "generations",
    "control",
    "other",
]


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A paper that a method comes from.

    Attributes:
        key: BibTeX key.
        title: Title of the paper.
        authors: Authors as BibTeX writes them.
        venue: Where it appeared.
        year: When it appeared.
        arxiv: Number on arXiv, if it has one.
    """

    key: str
    title: str
    authors: str
    venue: str
    year: int
    arxiv: str | None = None

    @property
    def bibtex(self) -> str:
        """The BibTeX entry."""
        # What is only on arXiv appeared in no proceedings.
        kind, where = ("article", "journal") if self.venue.startswith("arXiv") else ("inproceedings", "booktitle")
        fields = {"title": f"{{{self.title}}}", "author": self.authors, where: self.venue, "year": str(self.year)}
        if self.arxiv:
            fields |= {"eprint": self.arxiv, "archivePrefix": "arXiv"}
        body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@{kind}{{{self.key},\n{body}\n}}"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a list of methods shows of one.

    Attributes:
        name: Its name on the command line.
        build: What makes it. Here only its docstring and the names of its arguments count.
        papers: The papers it comes from.
        family: What it learns from, besides the labels. A `control` takes away what another method learns from.
    """

    name: str
    build: Callable[..., Any]
    papers: Sequence[Paper]
    family: Family = "other"

    # It stores its value in `__dict__`, which a frozen dataclass allows.
    @cached_property
    def _parameters(self) -> dict[str, inspect.Parameter]:
        return dict(inspect.signature(self.build).parameters)

    @property
    def fixtures(self) -> frozenset[str]:
        """The arguments that the builder passes."""
        return FIXTURES & self._parameters.keys()

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (parse_docstring(inspect.getdoc(self.build) or "").short_description or self.name).rstrip(".")

    @property
    def title(self) -> str:
        """Its name in words: the first line of its docstring up to the colon."""
        return self.summary.partition(":")[0]

    @property
    def teacher(self) -> str:
        """What kind of teacher it takes, in words."""
        if "teacher" in self.fixtures:
            return "trained"
        if "distill" in self.fixtures:
            return "as its method"
        return "trained in the run" if "make_teacher" in self.fixtures else "none"

    @property
    def sources(self) -> str:
        """The papers it comes from, each by its first author and year."""
        return "; ".join(f"{paper.authors.partition(',')[0]} {paper.year}" for paper in self.papers)


@dataclass(frozen=True, kw_only=True)
class Entry(Listing):
    """A registered method or recipe.

    Attributes:
        build: A `Method` class, a function that returns a `Method`, or a recipe (its first argument is `run`).
        trains: The network that it trains and returns: the student, or the teacher's architecture.
        plain: Whether it is plain training on the targets: the baseline of methods that train the same network.
        reads: What it needs from the data besides inputs, see `Offer`. Data that do not offer all of it are refused.
        uses: What it uses if the data offer it. It also works without.
        reads_if: What else it needs if a hyper-parameter is set (`standardize`: not false, none or zero) or has a
            certain value (`variant=code`).
        losses: Names of the functions of tensors that are its losses, for a training loop of one's own.
        exceptions: Checks of the conformance suite that it cannot pass, each with the reason.
    """

    # The strictest default: a method that says nothing is refused on other data, and never trains on the wrong thing.
    reads: frozenset[Offer] = EVERYTHING
    uses: frozenset[Offer] = frozenset()
    reads_if: Mapping[str, frozenset[Offer]] = field(default_factory=dict)
    trains: Trains = "student"
    plain: bool = False
    losses: Sequence[str] = ()
    exceptions: Mapping[str, str] = field(default_factory=dict)

    @property
    def functions(self) -> dict[str, Callable[..., Any]]:
        """The functions that are its losses, by the place to import them from.

        Losses that methods share are in `tutelage.losses`, all others in the method's own module.
        """
        # Imported here, because they bring torch, and lists of methods are read without it.
        shared, own = (importlib.import_module(name) for name in ("tutelage.losses", self.build.__module__))
        homes = [shared if hasattr(shared, name) else own for name in self.losses]
        return {f"{home.__name__}.{name}": getattr(home, name) for home, name in zip(homes, self.losses, strict=True)}

    @property
    def is_recipe(self) -> bool:
        """Whether it is a recipe, which runs stages itself or lets other methods run them, and not a single method."""
        return bool(self.fixtures & {"run", "distill"})

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """The hyper-parameters with their defaults."""
        return {name: p.default for name, p in self._parameters.items() if name not in FIXTURES}

    def reads_with(self, options: Mapping[str, Any] | None = None) -> frozenset[Offer]:
        """Return what it needs from the data with these hyper-parameters, or with the defaults."""
        values = self.hyper_parameters | dict(options or {})
        # A setting such as `variant=code` may need labels that the method does not need otherwise.
        beside = (offers for setting, offers in self.reads_if.items() if _is_set(setting, values))
        return self.reads.union(*beside)

    @property
    def needs_teacher(self) -> bool:
        """Whether it needs a teacher network, trained or as an architecture. A wrapper may: its method may need one."""
        return bool(self.fixtures & {"teacher", "make_teacher", "distill"})


def by_family(listings: Iterable[L]) -> list[L]:
    """Return methods family by family, each in the order of the names."""
    # Families come in the order in which their type lists them.
    order = get_args(Family)
    return sorted(listings, key=lambda each: (order.index(each.family), each.name))


def bibtex(listings: Iterable[Listing]) -> str:
    """Return the BibTeX of the papers behind methods, each once."""
    # By key, because methods share papers.
    papers = {paper.key: paper for each in listings for paper in each.papers}
    return "\n\n".join(paper.bibtex for paper in papers.values())


ENTRY_POINTS = "tutelage.methods"
"""The group of entry points by which other packages add methods."""

REGISTERED: dict[str, Entry] = {}
"""The methods registered so far, by name."""


def register(
    name: str,
    *,
    papers: Sequence[Paper],
    family: Family = "other",
    trains: Trains = "student",
    plain: bool = False,
    losses: Collection[str] = (),
    reads: Collection[Offer] = EVERYTHING,
    uses: Collection[Offer] = (),
    reads_if: Mapping[str, Collection[Offer]] | None = None,
    exceptions: Mapping[str, str] | None = None,
) -> Callable[[T], T]:
    """Register a method or a recipe under its command-line name.

    Args:
        name: Its name, in kebab case.
        papers: The papers it comes from, at least one.
        family: What it learns from, besides the labels.
        trains: The network that it trains and returns.
        plain: Whether it is plain training on the targets.
        losses: Names of the functions of tensors that are its losses, in `tutelage.losses` or in its own module. Only a
            method that wraps another one has none.
        reads: What it needs from the data besides inputs. By default everything that labelled images offer.
        uses: What it uses if the data offer it, such as the targets of a loss that it can leave out.
        reads_if: What else it needs if a hyper-parameter is set (`standardize`) or has a value (`variant=code`).
        exceptions: Checks of the conformance suite that it cannot pass, each with the reason.

    Raises:
        ValueError: If the name is taken.
    """

    def decorate(build: T) -> T:
        known = REGISTERED.get(name)
        # Registering the same function again does no harm.
        if known is not None and known.build is not build:
            raise ValueError(f"A method named {name!r} is already registered: {known.build}")
        REGISTERED[name] = Entry(
            name=name,
            build=build,
            papers=tuple(papers),
            family=family,
            trains=trains,
            plain=plain,
            losses=tuple(losses),
            reads=frozenset(reads),
            uses=frozenset(uses),
            reads_if={setting: frozenset(offers) for setting, offers in (reads_if or {}).items()},
            exceptions=dict(exceptions or {}),
        )
        return build

    return decorate


def _is_set(setting: str, values: Mapping[str, Any]) -> bool:
    name, equals, value = setting.partition("=")
    # Compared as text, because the declaration is text, and the value may be a number.
    return str(values[name]) == value if equals else bool(values[name])
