"""Making a recording: the teacher is asked about views of every training sample, shard by shard."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from rich.text import Text
from torch import Tensor

from tutelage.core.teachers.class_map import TeacherClasses
from tutelage.core.teachers.naming import TeacherSource
from tutelage.data.dataset import Data
from tutelage.data.images import ResidentImages
from tutelage.data.loader import ResidentLoader, StreamedLoader
from tutelage.data.plan import RECORDED, PlannedBatch
from tutelage.data.resolve import DataSource, resolve_data
from tutelage.errors import UserError, unknown
from tutelage.recording import header as headers
from tutelage.recording import layout, shards
from tutelage.recording.asking import Alone, Answers, Asked, asked, decision_of
from tutelage.recording.constancy import check_answers
from tutelage.recording.header import Header
from tutelage.recording.identity import DataIdentity, training_images
from tutelage.recording.planning import Chunks, Unit, expected_size, images_in, in_bytes, units, without
from tutelage.recording.quantization import Quantization, Values, as_values
from tutelage.recording.reading import Recording
from tutelage.system.chance import generator, kept
from tutelage.system.console import Reporter, Silent, Terminal
from tutelage.system.devices import threads
from tutelage.system.interrupt import Interrupted, Interruption
from tutelage.system.memory import kept_memory
from tutelage.system.parts import Part
from tutelage.training.compilation import compiled
from tutelage.training.decisions import Decision
from tutelage.training.settings import Training

Read = tuple[PlannedBatch, Any, Tensor | None]
# How many views share one reading of the images. Each view fills a shard in memory, which an interruption loses.
_VIEWS_AT_ONCE = 4
_USUAL_VIEWS = 8
SETTINGS = ("batch_size", "precision", "channels_last", "compile", "keep_memory", "threads", "device", "workers")


@kept()
def record(
    teacher: TeacherSource,
    *,
    data: DataSource,
    out: str | Path,
    teacher_classes: TeacherClasses | None = None,
    views: int | None = None,
    keep: str = "full",
    values: Values = "float32",
    layers: Sequence[str] = (),
    validation: DataSource | float | None = None,
    augment: str | None = None,
    part: str | None = None,
    seed: int = 0,
    progress: bool = True,
    trust_code: bool = False,
    **settings: Any,
) -> Recording | None:
    """Record a teacher's answers to views of every training sample, to be replayed instead of the teacher.

    Finished shards in the folder are kept. The same call continues after an interruption and rewrites damaged shards; a
    call with more views adds them.

    Args:
        teacher: A trained module, a `Teacher`, or a name as on the command line. Several modules or names answer as an
            ensemble.
        data: A dataset of (image, label), or a name or path; its training split is recorded.
        out: The folder of the recording.
        teacher_classes: Which of the teacher's classes stand for the data's, if it has others: a class map, or the
            path of a file with one. The data's classes are recorded.
        views: How many views of each sample there should be; by default eight, or one where nothing is augmented.
        keep: What is kept of an answer: `full` (the logits), `hard`, `smoothed`, `topK` or `topK-renormalized`; or
            `none`, to record layers alone. The teacher may then have any classes, or none.
        values: How logits, probabilities and features are stored: `float32` or `float16`.
        layers: Names of layers of the teacher to record as well.
        validation: Validation data, or the share of the training samples to hold out for validation. Held-out samples
            are not recorded.
        augment: The augmentation of the training images, such as `crop:4,flip`. It makes the views.
        part: Which share of the work to do, such as `2/4`, if several processes or machines share the folder.
        seed: Seed of the views.
        progress: Whether to show progress.
        trust_code: Whether a saved network may run the code that it names, though you never named that code yourself.
        **settings: Fields of `Training`: `batch_size`, `precision`, `channels_last`, `compile`, `keep_memory`,
            `threads`, `device`, `workers`.

    Returns:
        The recording; None if it has no finished view yet because other parts are still at work.

    Raises:
        UserError: If anything does not fit: for example, the folder holds a recording of another teacher or with other
            settings, or the teacher's answers to the same question differ each time.
        Interrupted: If Ctrl-C or SIGTERM came; the same call continues from there.

    Examples:
        >>> import tutelage
        >>> data = tutelage.load_data("digits", subset=100)
        >>> teacher = tutelage.load_network("tiny_cnn", num_classes=10, in_channels=1)
        >>> recording = tutelage.record(teacher, data=data, out=folder, views=2, progress=False)
        >>> recording.views
        2
    """
    for name in settings:
        # The other fields of `Training` belong to students, and would have no effect here.
        if name not in SETTINGS:
            raise unknown("setting", name, SETTINGS)
    splits, training = resolve_data(data, validation=validation, augment=augment), Training(**settings)
    images, views = training_images(splits), _wanted(views, splits)
    logits = _keeps_answers(keep, layers, splits)
    # Refused before the first file is written, so that no folder is left behind.
    found = asked(teacher, splits, layers, logits=logits, classes=teacher_classes, trust_code=trust_code)
    folder, share = Path(out), Part.parse(part)
    begun = headers.begun(folder)
    decision = decision_of(found, splits, training, views=views, begun_in=None if begun is None else begun.precision)
    header = _header(found, splits, keep=keep, values=values, seed=seed, precision=decision.precision)
    if begun is not None:
        # The user never chooses the rows per shard, so another version's choice must not count as a difference.
        header = replace(header, rows_per_shard=begun.rows_per_shard)
        headers.check(folder, begun, header)
    with Interruption() as interruption, threads(decision.threads), kept_memory(decision.keep_memory):
        writer = _Writer(folder, header, splits, interruption, Terminal() if progress else Silent())
        # Images in memory cost nothing to read again, and one view at a time is complete sooner.
        at_once = 1 if isinstance(images, ResidentImages) else _VIEWS_AT_ONCE
        work = units(header.shards, views=views, at_once=at_once, part=share)
        sound = writer.sound(work)
        answers = Answers(found.teacher, decision)
        # Before anything is written: a teacher with random answers leaves no shards.
        check_answers(folder, header, splits, answers, sound)
        # Finished shards are kept, damaged ones are written again.
        left = without(work, sound)
        if left:
            shards.sweep(folder)
            writer.announce(left, views, decision)
            writer.begin()
            writer.write(left, answers, training, all_work=work)
    finished = (shards.complete_shards(folder, header, view) == header.shards for view in shards.views_present(folder))
    return Recording(folder) if share.of == 1 or any(finished) else None


def _keeps_answers(keep: str, layers: Sequence[str], data: Data) -> bool:
    """Return whether answers are recorded, and not layers alone.

    Raises:
        UserError: If nothing would be recorded, or a kept part of an answer could not be restored.
    """
    quantization = Quantization.parse(keep)
    if quantization.kept is not None and "classes" not in data.task.offers:
        # What is restored of the kept classes is a softmax's distribution.
        raise UserError(
            f"keep={keep} needs answers that choose one of several classes, and those of {data.name} "
            f"({data.task.title}) do not: record them whole (--keep full)."
        )
    if not (quantization.keeps_answers or layers):
        raise UserError("--keep none leaves nothing to record: name layers as well (--layers; layers= in Python).")
    return quantization.keeps_answers


def _wanted(views: int | None, data: Data) -> int:
    differ = data.augmentation.width > 0
    if views is None:
        return _USUAL_VIEWS if differ else 1
    if views < 1:
        raise UserError(f"views={views} must be above zero.")
    if views > 1 and not differ:
        raise UserError(
            "Views are made by an augmentation, not by a dataset's own transforms, and there is none: all "
            f"{views} would be the same. Record one (--views 1), or augment (--augment flip; augment= in Python)."
        )
    return views


def _header(found: Asked, data: Data, *, keep: str, values: Values, seed: int, precision: str) -> Header:
    header = Header(
        keep=str(Quantization.parse(keep)),
        values=values,
        classes=data.num_classes,
        samples=data.count("train"),
        # Replaced below: the size of a row follows from the other fields.
        rows_per_shard=1,
        augmentation=str(data.augmentation),
        parameters=data.augmentation.width,
        image_size=data.image_size,
        seed=seed,
        precision=precision,
        teacher=found.identity,
        data=DataIdentity.of(data),
        layers=found.layers,
        stages=found.stages,
    )
    return replace(header, rows_per_shard=layout.rows_per_shard(header.row_dtype.itemsize))


class _Writer:
    """Writes the shards of one part.

    Args:
        folder: Where the recording is, or will be.
        header: Its header.
        data: The data to record.
        interruption: Notes a request to stop.
        reporter: Shows the progress.
    """

    def __init__(
        self, folder: Path, header: Header, data: Data, interruption: Interruption, reporter: Reporter
    ) -> None:
        self.folder, self.header, self.data = folder, header, data
        self._interruption, self._reporter = interruption, reporter

    def sound(self, work: Sequence[Unit]) -> set[tuple[int, int]]:
        """Return the pairs of view and shard that exist and are intact; damaged shards are reported."""
        pairs = [(view, unit.shard) for unit in work for view in unit.views]
        there = [pair for pair in pairs if shards.is_complete(self.folder, *pair)]
        found = set()
        with self._bar("checking shards", total=len(there)) if there else nullcontext():
            for view, shard in there:
                self._heed(len(there), len(pairs))
                if shards.state(self.folder, self.header, view, shard) == "complete":
                    found.add((view, shard))
                else:
                    path = layout.shard_path(self.folder, view, shard)
                    self._reporter.note(Text.assemble(("damaged", "yellow"), f"  {path} is written again"))
                self._reporter.advance(1)
        return found

    def announce(self, work: Sequence[Unit], views: int, decision: Decision) -> None:
        """Report what will be written, and refuse if the disk has no room for it."""
        needed = images_in(self.header, work) * self.header.row_dtype.itemsize
        self._reporter.note(f"{expected_size(self.header, views=views)}, {in_bytes(needed)} of it now")
        self._reporter.note(Text(str(decision), "dim"), once=True)
        place = self.folder.absolute()
        free = shutil.disk_usage(next(it for it in (place, *place.parents) if it.exists())).free
        # All parts fill the same disk, so the check counts what every part still has to write.
        missing = self._missing(views)
        if missing > free:
            raise UserError(
                f"{self.folder} needs {in_bytes(missing)}, and its disk has {in_bytes(free)} left: free some space, "
                "choose another folder with --out, record fewer --views, or keep less (--keep top5, --values float16)."
            )

    def _missing(self, views: int) -> int:
        """Return how many bytes all parts together still have to write."""
        pairs = [(view, shard) for view in range(views) for shard in range(self.header.shards)]
        missing = [shard for view, shard in pairs if not shards.is_complete(self.folder, view, shard)]
        return sum(len(self.header.rows(shard)) for shard in missing) * self.header.row_dtype.itemsize

    def begin(self) -> None:
        """Store the header, which all parts share."""
        self.header.write(self.folder)
        # `write` keeps an existing header. Another process may have stored that of another recording meanwhile.
        headers.check(self.folder, Header.read(self.folder), self.header)

    def write(self, work: Sequence[Unit], answers: Answers, training: Training, *, all_work: Sequence[Unit]) -> None:
        """Record unit after unit; a shard appears when it is complete."""
        loader = self.data.loader(
            "train",
            train=False,
            batch_size=training.batch_size,
            batch_sampler=Chunks(self.header, work, training.batch_size),
            device=answers.decision.device,
            workers=training.workers,
        )
        assert isinstance(loader, ResidentLoader | StreamedLoader)
        read, pairs = loader.read(0), sum(len(unit.views) for unit in all_work)
        left, started, answered = sum(len(unit.views) for unit in work), time.monotonic(), 0
        total = images_in(self.header, all_work)

        def tick(images: int) -> None:
            nonlocal answered
            answered += images
            self._reporter.advance(images)
            self._reporter.status(f"{answered / (time.monotonic() - started):,.0f} images/s")
            self._heed(pairs - left, pairs)

        ready = compiled(Alone(answers.teacher), answers.decision, loader, self._reporter)
        with ready, self._bar("recording", total=total, done=total - images_in(self.header, work)):
            for unit in work:
                self._fill(unit, read, answers, tick)
                left -= len(unit.views)

    def _fill(self, unit: Unit, read: Iterator[Read], answers: Answers, tick: Callable[[int], None]) -> None:
        """Fill the shards of a unit side by side; `tick` is called with the number of images of each answer."""
        header, samples = self.header, len(self.header.rows(unit.shard))
        with ExitStack() as stack:
            # An ExitStack leaves its contexts in reverse order, and the first view should be complete first.
            rows = {
                view: stack.enter_context(shards.writing(self.folder, header, view, unit.shard))
                for view in reversed(unit.views)
            }
            drawn = {view: self._parameters(view, unit.shard) for view in unit.views}
            done = 0
            # A batch never spans two shards.
            while done < samples:
                planned, images, targets = next(read)
                part = slice(done, done + len(planned.indices))
                for view in unit.views:
                    self._answer(answers, planned, images, targets, drawn[view][part], into=rows[view][part])
                    tick(len(planned.indices))
                done = part.stop

    def _parameters(self, view: int, shard: int) -> Tensor:
        """Return the parameters of a view of a shard's samples, `[row, width]`; they are the same in any process."""
        # By view and shard, so that parts and repetitions draw the same views.
        chance = generator(self.header.seed, RECORDED, view, shard)
        height, width = self.header.image_size
        return self.data.augmentation.sample(chance, len(self.header.rows(shard)), (height, width))

    def _answer(
        self,
        answers: Answers,
        planned: PlannedBatch,
        images: Tensor,
        targets: Tensor | None,
        parameters: Tensor,
        *,
        into: NDArray[Any],
    ) -> None:
        """Ask the teacher about a view of some images, and store its answer in rows."""
        output = answers.about(images, targets, planned.indices, parameters, self.data)
        into[layout.PARAMETERS] = parameters.numpy()
        self.header.quantization.fill(into, output.logits, values=self.header.values)
        for layer in self.header.layers:
            what = f"outputs of the layer {layer}"
            into[layout.FEATURE + layer] = as_values(output.features[layer], self.header.values, what=what)

    @contextmanager
    def _bar(self, title: str, *, total: int, done: int = 0) -> Iterator[None]:
        self._reporter.begin(title, total=total, done=done)
        finished = False
        try:
            yield
            finished = True
        finally:
            self._reporter.end(finished=finished)

    def _heed(self, written: int, wanted: int) -> None:
        # Shards in work are lost: this error ends their contexts before they are stored.
        if self._interruption.requested is not None:
            raise Interrupted(
                self._interruption.requested,
                f"Stopped. {written} of {wanted} shards are written to {self.folder}. Run the same command again to "
                "continue.",
            )
