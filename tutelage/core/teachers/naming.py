"""Makes a teacher from what the user gives: a network, a `Teacher`, or a name with a prefix."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import ClassVar

from torch import nn

from tutelage.core.teachers.class_map import ClassMap, ClassMapTeacher, TeacherClasses
from tutelage.core.teachers.combining import MEAN, Together
from tutelage.core.teachers.ensemble import EnsembleTeacher
from tutelage.core.teachers.network import FrozenTeacher
from tutelage.core.teachers.priced import PricedTeacher
from tutelage.core.teachers.teacher import ALONE, Teacher
from tutelage.data.dataset import Data
from tutelage.data.plan import RecordedViews
from tutelage.errors import UserError
from tutelage.models.blueprint import Blueprint, Source, blueprint, several
from tutelage.models.ensemble import Ensemble
from tutelage.models.spec import TEACHERS
from tutelage.system import digests

ENTRY_POINTS = "tutelage.teachers"

TeacherSource = Source | Teacher | RecordedViews | Sequence[Source | Teacher] | None


class TeacherKind(ABC):
    """A kind of teacher with names of its own.

    A new kind takes one class and one entry in `TEACHERS`. A kind of another package is an entry point instead.

    Attributes:
        prefix: The beginning of its names, before a colon.
    """

    prefix: ClassVar[str]

    @abstractmethod
    def teacher(self, source: object) -> Teacher | None:
        """Return the named teacher; None if the source is not a name of this kind.

        Raises:
            UserError: If it is a name of this kind, or looks like one, but there is no such teacher.
        """


@dataclass(frozen=True)
class NamedTeacher:
    """The teacher that a user named.

    Attributes:
        answers: The teacher, if it can answer already; None if networks must be built first.
        networks: The networks to build, each trained or as an architecture; several answer as an ensemble.
        classes: For each network, which of its classes stand for the data's; empty if its classes are the data's.
        together: How several networks answer together.
    """

    answers: Teacher | None = None
    networks: tuple[Blueprint, ...] = ()
    classes: tuple[ClassMap, ...] = ()
    together: Together = MEAN


def named_teacher(
    source: TeacherSource,
    data: Data,
    *,
    classes: TeacherClasses | None = None,
    together: Together = MEAN,
    queries: int | None = None,
    trust_code: bool = False,
) -> NamedTeacher:
    """Return the teacher that a user names.

    Args:
        source: A network (a name, a module, a factory), a `Teacher` or a recording. Several are an ensemble.
        data: The data that it teaches.
        classes: Which of its classes stand for the data's, if it has other classes.
        together: How several answer together.
        queries: How many samples each teacher whose answers have a price may be asked about; None for no limit.
        trust_code: Whether saved networks may run the code that their `network.json` names.

    Raises:
        UserError: If a name is unknown, the teachers cannot be an ensemble, the class map does not fit, or queries are
            limited and no answer has a price.
    """
    found = [one if (one := _answering(each)) is not None else each for each in _several(source)]
    answering = [one for one in found if isinstance(one, Teacher)]
    together.check_count(len(found))
    if queries is not None:
        _limit(answering, queries)
    if not answering:
        sources = [one for one in found if not isinstance(one, Teacher)]
        return replace(_of_networks(sources, data, classes, trust_code=trust_code), together=together)
    # A recording's answers belong to its own views, so nothing else could answer beside it.
    for teacher in answering if len(found) > 1 else ():
        teacher.must_be_live(*ALONE)
    if len(answering) < len(found):
        raise UserError(
            "Some of the teachers are networks and some are Teacher objects: pass all of them as networks, or all as "
            "Teacher objects."
        )
    if classes is not None:
        # The classes of a `Teacher` have no names that could be asked for.
        mapped = ClassMap.read(classes, teacher_names=(), data_names=data.class_names)
        answering = [ClassMapTeacher(teacher, mapped) for teacher in answering]
    return NamedTeacher(answers=answering[0] if len(answering) == 1 else EnsembleTeacher(answering, together))


def teacher_of(networks: Sequence[nn.Module], classes: Sequence[ClassMap] = (), together: Together = MEAN) -> Teacher:
    """Return trained networks as a teacher; several answer as an ensemble.

    Args:
        networks: The networks.
        classes: For each of them, which of its classes stand for the data's; empty if its classes are the data's.
        together: How they answer together.
    """
    members: list[Teacher] = [FrozenTeacher(network) for network in networks]
    if classes:
        members = [ClassMapTeacher(one, found) for one, found in zip(members, classes, strict=True)]
    teacher = members[0] if len(members) == 1 else EnsembleTeacher(members, together)
    # Its identity is that of the bare networks, so that wrapping them does not rename its folders.
    bare = networks[0] if len(networks) == 1 else Ensemble(networks)
    return teacher.with_identity(digests.of_tensors(bare.state_dict()))


def _limit(teachers: Sequence[Teacher], queries: int) -> None:
    """Give each teacher whose answers have a price its budget."""
    if queries < 1:
        raise UserError(f"queries={queries} must be 1 or more: how many samples the teacher may be asked about.")
    priced = [one for teacher in teachers for one in teacher.within() if isinstance(one, PricedTeacher)]
    if not priced:
        raise UserError(
            "--queries limits what a teacher behind a price is asked, and this teacher has none: leave it out, or name "
            "a black box, such as --teacher http://HOST:PORT/v2/models/NAME."
        )
    for one in priced:
        one.limit(queries)


def _of_networks(
    sources: Sequence[Source], data: Data, classes: TeacherClasses | None, *, trust_code: bool
) -> NamedTeacher:
    own = classes is not None
    plans = tuple(
        blueprint(one, data, trained=True, teaches=True, own_classes=own, trust_code=trust_code) for one in sources
    )
    if classes is None:
        return NamedTeacher(networks=plans)
    if not plans:
        raise UserError("A class map is for a teacher, but none is given: pass --teacher (teacher= in Python).")
    untrained = next((plan.name for plan in plans if not plan.trained), None)
    if untrained is not None:
        raise UserError(
            f"A class map is for a teacher that is already trained for other classes, but {untrained} is untrained and "
            "would be trained for the data's own classes. Leave out the class map, or name trained weights."
        )
    maps = [ClassMap.read(classes, teacher_names=plan.class_names, data_names=data.class_names) for plan in plans]
    return NamedTeacher(networks=plans, classes=tuple(maps))


def _several(source: TeacherSource) -> Sequence[Source | Teacher]:
    return () if source is None else several(source)  # type: ignore[arg-type]


def _answering(source: object) -> Teacher | None:
    """Return the teacher that a source is or names; None if it is a network."""
    if isinstance(source, Teacher):
        return source
    return next((found for kind in _kinds() if (found := kind.teacher(source)) is not None), None)


def _kinds() -> Iterator[TeacherKind]:
    # One kind may have several prefixes.
    for place in dict.fromkeys(TEACHERS.values()):
        module, _, attribute = place.partition(":")
        yield getattr(importlib.import_module(module), attribute)
    # Kinds of other packages come last, so that none can take over a prefix of ours.
    for point in entry_points(group=ENTRY_POINTS):
        yield point.load()
