"""The teacher of a search, with which candidates are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from tutelage.core.teachers.naming import TeacherSource
from tutelage.core.teachers.teacher import Teacher
from tutelage.data.batch import Batch
from tutelage.data.dataset import Data
from tutelage.errors import UserError
from tutelage.models.blueprint import Blueprint, blueprint, check_classes, check_takes, several
from tutelage.searching.candidate import Candidate
from tutelage.searching.scoring import Score
from tutelage.system.digests import of_tensors


@dataclass(frozen=True)
class TeacherPlan:
    """A teacher that was checked.

    Attributes:
        plan: Makes it.
        keeps_weights: Whether it keeps its trained weights.
        identity: Its name, with a digest of its weights where it keeps them.
    """

    plan: Blueprint
    keeps_weights: bool
    identity: str

    def show(self, scores: Sequence[Score], batch: Batch, seed: int, device: str) -> None:
        """Let each score learn from a draw of the teacher's weights.

        Raises:
            UserError: If the score cannot be computed of this teacher.
        """
        for draw, score in enumerate(scores):
            # A trained teacher has the same weights in all draws.
            network = self.plan.build(seed, "teacher") if self.keeps_weights else self._untrained(seed, draw)
            shown = Candidate.of(network.to(device), batch.to(device))
            try:
                score.learn(shown)
            except UserError as error:
                raise UserError(f"Nothing can be compared with the teacher {self.plan.name}: {error}") from error

    def _untrained(self, seed: int, draw: int) -> nn.Module:
        return self.plan.build_untrained(seed, f"teacher/{draw}")


def taught(teacher: TeacherSource, data: Data, score: Score, *, name: str, trust_code: bool) -> TeacherPlan | None:
    """Return the teacher of a search, checked; None if the score needs none.

    Args:
        teacher: The teacher: a name, a network or a factory.
        data: The data.
        score: The score.
        name: What the user called the score.
        trust_code: Whether a saved teacher may run the code that it names.

    Raises:
        UserError: If it is missing, cannot be looked into, or has other classes than the data.
    """
    if not score.needs_teacher:
        return None
    if teacher is None:
        raise UserError(f"The score {name} compares networks with a teacher: name one, --teacher (teacher= in Python).")
    sources = several(teacher)  # type: ignore[arg-type]
    if (
        len(sources) != 1
        or isinstance(sources[0], Teacher)
        or not (isinstance(sources[0], str) or callable(sources[0]))
    ):
        raise UserError("A search looks into one teacher: pass one network, or its name.")
    plan = blueprint(sources[0], data, trained=True, teaches=score.trained_teacher, trust_code=trust_code)
    if score.trained_teacher and not plan.trained:
        raise UserError(
            f"The score {name} wants the teacher's trained weights, but {plan.name} comes without. Name a run, or "
            "leave out trained_teacher=true."
        )
    network = plan.build(0, "teacher") if score.trained_teacher else plan.build_untrained(0, "teacher")
    (check_classes if "classes" in score.reads else check_takes)(network, data, who="teacher")
    digest = f" {of_tensors(network.state_dict())}" if score.trained_teacher else ""
    return TeacherPlan(plan, score.trained_teacher, plan.name + digest)
