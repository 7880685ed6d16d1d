"""The search for a student: a space is gone through by evolution, and each network is scored without training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tutelage.core.teachers.naming import TeacherSource
from tutelage.data.batch import Batch
from tutelage.data.dataset import Data
from tutelage.errors import UserError
from tutelage.experiments.serving import needing
from tutelage.models.found import RESULT
from tutelage.models.normalization import Normalization
from tutelage.models.spec import NetworkSpec
from tutelage.models.tokenizers import encoded_for
from tutelage.models.trust import Origin, remember
from tutelage.searching import scores as _registered  # noqa: F401 - its modules register the scores
from tutelage.searching.agreement import kendall
from tutelage.searching.batch import one_batch
from tutelage.searching.course import Course
from tutelage.searching.examining import Examiner, Result
from tutelage.searching.ledger import Ledger
from tutelage.searching.limits import Limits, amount
from tutelage.searching.pool import examining
from tutelage.searching.scoring import Score, score_named
from tutelage.searching.settings import SearchSettings
from tutelage.searching.space import Space
from tutelage.searching.teaching import TeacherPlan, taught
from tutelage.system.chance import derive
from tutelage.system.console import Reporter
from tutelage.system.devices import device_type
from tutelage.system.files import write_json
from tutelage.system.interrupt import Interruption
from tutelage.version import VERSION


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search, ready to run.

    Attributes:
        space: Where students are looked for.
        settings: The settings.
        limits: The limits on their size.
        scores: The score, once for each draw of the weights.
        data: The data.
        batch: The batch by which networks are scored.
        teacher: The teacher; None for scores that need none.
        folder: Where the results go.
        command: What the user typed.
    """

    space: Space
    settings: SearchSettings
    limits: Limits
    scores: tuple[Score, ...]
    data: Data
    batch: Batch
    teacher: TeacherPlan | None
    folder: Path
    command: str

    @classmethod
    def of(
        cls,
        space: str,
        teacher: TeacherSource,
        data: Data,
        settings: SearchSettings,
        *,
        folder: Path,
        command: str,
        trust_code: bool = False,
    ) -> Search:
        """Return the search that a user asks for.

        Args:
            space: The space, as `Space.parse` reads it.
            teacher: The teacher: a name or a network. Scores that compare nothing need none.
            data: The data.
            settings: The settings.
            folder: Where the results go.
            command: What the user typed.
            trust_code: Whether a saved teacher may run the code that it names.

        Raises:
            UserError: If anything does not fit.
        """
        searched, limits = Space.parse(space), Limits.parse(settings.limit)
        scores = tuple(score_named(settings.score) for _ in range(settings.draws))
        data = encoded_for(data, [searched.network(searched.smallest())], [] if teacher is None else [teacher])
        lacking = scores[0].reads - data.offers
        if lacking:
            raise UserError(
                f"The score {settings.score} cannot be computed on {data.name}: {needing(lacking)}, which these data "
                "do not have. Choose another --score."
            )
        plan = taught(teacher, data, scores[0], name=settings.score, trust_code=trust_code)
        return cls(
            space=searched,
            settings=settings,
            limits=limits,
            scores=scores,
            data=data,
            batch=one_batch(data, settings.batch_size, seed=derive(settings.seed)),
            teacher=plan,
            folder=folder,
            command=command,
        )

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """Search, leave the result in the folder, and return it.

        Raises:
            UserError: If no network of the space can be scored, or the folder holds another search.
            Interrupted: If Ctrl-C or SIGTERM came; the same call goes on from there.
        """
        device = device_type(self.settings.device)
        examiner = self._examiner(device)
        # Before the teacher is built: it tells at once that the folder is taken.
        ledger = Ledger(self.folder, self._facts(device))
        with Interruption() as interruption:
            if self.teacher is not None:
                self.teacher.show(self.scores, self.batch, self.settings.seed, device)
            with examining(examiner, self.settings.workers) as examine:
                course = Course(self.space, self.settings, self.folder, examine, ledger, interruption, reporter)
                finished = False
                reporter.begin(f"search {self.space.text}", total=course.most, done=0)
                try:
                    course.evolution.run(course.examine)
                    finished = bool(course.evolution.scored)
                finally:
                    reporter.end(finished=finished)
        if not course.evolution.scored:
            raise self._nothing_found([result for _, result in course.evolution.results])
        content = self._content(course, examiner)
        for each in content["best"]:
            # The user named this code with the space; a network by the name `found:` may then run it.
            code = NetworkSpec.parse(each["network"]).code
            if code is not None:
                remember(code)
        write_json(self.folder / RESULT, content)
        return content

    def _examiner(self, device: str) -> Examiner:
        data = self.data
        return Examiner(
            scores=self.scores,
            batch=self.batch.to(device),
            limits=self.limits,
            num_classes=data.num_classes,
            in_channels=data.in_channels,
            statistics=Normalization(mean=tuple(data.mean), std=tuple(data.std)) if data.mean else None,
            seed=self.settings.seed,
            device=device,
        )

    def _facts(self, device: str) -> dict[str, Any]:
        """Return what the result of a candidate depends on. How many there are, and who scores them, does not count."""
        return {
            "version": 1,
            "space": self.space.text,
            "score": self.settings.score,
            "limit": self.limits.text,
            "teacher": None if self.teacher is None else self.teacher.identity,
            "data": f"{self.data.name} {self.data.fingerprint[:16]}",
            "seed": self.settings.seed,
            "draws": self.settings.draws,
            "batch_size": len(self.batch),
            "device": device,
        }

    def _content(self, course: Course, examiner: Examiner) -> dict[str, Any]:
        """Return the content of the result's file."""
        results = [result for _, result in course.evolution.results]
        scored = [result for result in results if result.score is not None]
        best = sorted(scored, key=lambda result: -result.value)[: self.settings.best]
        return {
            **self._facts(device_type(self.settings.device)),
            "tutelage": VERSION,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": self.command,
            "networks": self.space.size,
            "limits": str(self.limits),
            "outcomes": dict(Counter(result.outcome for result in results)),
            "reasons": {result.outcome: f"{result.network}: {result.reason}" for result in results if result.reason},
            "seconds": sum(result.seconds for result in results),
            "passes": sum(result.passes for result in results),
            "agreement": kendall([result.value for result in scored], [result.parameters or 0 for result in scored]),
            "best": [_kept(result, examiner) for result in best],
            "candidates": [asdict(result) for result in results],
        }

    def _nothing_found(self, results: Sequence[Result]) -> UserError:
        """Return the error for a search in which no candidate could be scored."""
        by_outcome: dict[str, list[Result]] = {}
        for result in results:
            by_outcome.setdefault(result.outcome, []).append(result)
        lines = [f"No network of the space {self.space.text!r} can be scored; {len(results)} were examined."]
        if over := by_outcome.get("over the limits"):
            least = min(over, key=lambda result: result.parameters or 0)
            counted = "" if least.multiply_adds is None else f" and {amount(least.multiply_adds)} multiply-adds"
            lines.append(
                f"{len(over)} do not keep the limits ({self.limits}): the smallest, {least.network}, has "
                f"{amount(least.parameters or 0)} parameters{counted}. Change --limit, or widen the space."
            )
        if unbuilt := by_outcome.get("not built"):
            lines.append(f"{len(unbuilt)} do not build, such as {unbuilt[0].network}: {unbuilt[0].reason}")
        if unlike := by_outcome.get("not comparable"):
            lines.append(f"{len(unlike)} cannot be scored, such as {unlike[0].network}: {unlike[0].reason}.")
            lines.append(self.scores[0].advice)
        return UserError(" ".join(filter(None, lines)))


def _kept(result: Result, examiner: Examiner) -> dict[str, Any]:
    """Return one of the best networks as the file keeps it: named from everywhere, and with both sizes."""
    spec = NetworkSpec.parse(result.network)
    counted = result.multiply_adds
    if counted is None:
        # Built again: while candidates are scored, nobody waits for a count that only a table shows.
        counted = examiner.multiply_adds(replace(spec, origin=Origin(RESULT, trusted=True)))
    return {**asdict(result), "network": str(spec.absolute()), "multiply_adds": counted}
