"""Active mixup: few images and a black box, which is asked about the mixtures that the student is unsure of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from tutelage.core.registry import Paper, register
from tutelage.core.teachers import TableTeacher, Teacher
from tutelage.data.batch import Batch
from tutelage.data.images import ResidentImages, as_inputs
from tutelage.data.samples import Samples
from tutelage.data.sources import Data
from tutelage.errors import UserError
from tutelage.losses import wide
from tutelage.methods.born_again import BornAgain
from tutelage.methods.parts.mixture_pool import SHARES, Mixtures, drawn, free, least_confident, pool_size
from tutelage.system import digests, processes
from tutelage.system.chance import generator
from tutelage.system.devices import device_type
from tutelage.training.run import Run

WANG = Paper(
    key="wang2020neural",
    title="Neural Networks Are More Productive Teachers Than Human Raters: Active Mixup for Data-Efficient Knowledge "
    "Distillation From a Blackbox Model",
    authors="Wang, Dongdong and Li, Yandong and Wang, Liqiang and Gong, Boqing",
    venue="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
    year=2020,
    arxiv="2003.13960",
)

Selection = Literal["confidence", "random", "none"]
# Samples of one question, and of one stage: an interrupted run asks about no more of them again.
_AT_ONCE, _STORED = 64, 1024


@register(
    "active-mixup",
    papers=[WANG],
    losses=["soft_cross_entropy"],
    reads={"images", "classes", "sample-answers"},
    family="logits",
    exceptions={
        "accepts-other-teachers": "a recorded answer belongs to one image, and the teacher is asked about two in one",
    },
)
def active_mixup(
    run: Run,
    make_student: Callable[[str], nn.Module],
    teacher: Teacher,
    data: Data,
    *,
    images: int | None = None,
    rounds: str = "10000+10000+20000+40000",
    selection: Selection = "confidence",
    candidates: int | None = None,
) -> nn.Module:
    r"""Active mixup: rounds of asking a black box about the mixtures of images that the student is least sure of.

    $$ L = -\sum_c p^t(c) \log p^s(c), \qquad C(i, j) = \min_\lambda \max_c
    p^s_c\big(\lambda x_i + (1 - \lambda) x_j\big), \quad \lambda \in \{0.30, 0.34, \dots, 0.70\} $$

    The teacher answers $N$ images, without augmentation, and a student learns from them. In each round the pairs with
    the lowest $C$ are mixed at their $\lambda$, at most once a pair; the teacher answers them; and a new student learns
    from everything that was answered so far. The pairs are image $i$ and its followers at the distances 1 to
    $\lfloor (N - 1) / 2 \rfloor$. No labels are used. The number of queries is $N$ plus the sum of the rounds.

    Args:
        run: The run whose stages these are.
        make_student: Makes the student afresh.
        teacher: Any live teacher that gives logits.
        data: The data.
        images: $N$, drawn at random from the training images; all by default.
        rounds: How many mixtures are asked about in each round, joined by `+`.
        selection: `confidence` as above; `random` pairs and shares, which the paper compares with; or `none` for no
            mixtures at all.
        candidates: How many pairs, drawn at random in each round, are scored. By default all are, which costs
            $11 N \lfloor (N - 1) / 2 \rfloor$ forward passes of the student: 5.5 million for 1,000 images.

    Raises:
        UserError: If a number is out of its range, the images have more than 8 bits, or the teacher's answers are
            recorded.

    Paper: Wang, Li, Wang, Gong, Neural Networks Are More Productive Teachers Than Human Raters, CVPR 2020.

    Differences: The authors store mixtures by a conversion that turns white to black; here they are rounded to 8 bits,
        and what is scored is what is asked. They train each student in four parts with momentum from zero; here each
        has one schedule. They choose the epoch on test images; here it is chosen on validation images, if there are
        any. All images of a round are mixtures of the first $N$ images, not of earlier mixtures, as in their code.
    """
    teacher.must_be_live("active-mixup asks the teacher about mixtures of images")
    if processes.planned() > 1:
        raise UserError(
            "active-mixup asks the teacher between trainings, and several processes would each ask: run it in one."
        )
    counts = [] if selection == "none" else _counts(rounds)
    if candidates is not None and candidates < max(counts, default=1):
        raise UserError(f"candidates={candidates} must be at least the mixtures of a round, {max(counts)}.")
    first = _images(run, data, images)
    if counts and (total := pool_size(len(first))) < sum(counts):
        run.reporter.note(
            f"{len(first)} images have {total:,} pairs, fewer than the mixtures of all rounds: all are used."
        )
    learnt = Answered(first, _ask(run, "answers-0", teacher, first, data))
    network = _learn(run, 0, make_student, learnt, data)
    taken, points = torch.empty(0, dtype=torch.int64), _point(run, data, len(first))
    for number, count in enumerate(counts, start=1):
        chosen = _chosen(run, number, network, first, taken, count, selection, candidates)
        if not len(chosen.pairs):
            break
        asked = chosen.images(first)
        learnt = learnt.and_also(asked, _ask(run, f"answers-{number}", teacher, asked, data))
        taken = torch.cat([taken, chosen.pairs])
        network = _learn(run, number, make_student, learnt, data)
        points += _point(run, data, len(learnt.images))
    run.note(curves=[{"over": "queries", "values": points}])
    return network


@dataclass(frozen=True)
class Answered:
    """Images and what the teacher answered.

    Attributes:
        images: uint8 `[sample, channel, height, width]`.
        logits: `[sample, class]`.
    """

    images: Tensor
    logits: Tensor

    def and_also(self, images: Tensor, logits: Tensor) -> Answered:
        """Return these and further ones."""
        return Answered(torch.cat([self.images, images]), torch.cat([self.logits, logits]))

    def data(self, data: Data) -> Data:
        """Return the data with these images as its training split, without labels."""
        digest = digests.of_tensors({"images": self.images, "logits": self.logits})
        found = data.with_splits(train=ResidentImages(self.images, None))
        return replace(found, fingerprint=f"{data.fingerprint} {digest}", recording=None)


def _counts(rounds: str) -> list[int]:
    parts = rounds.replace(" ", "").split("+")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"rounds={rounds} must be numbers of mixtures, one for each round: 500+500+1000.")
    return [int(part) for part in parts]


def _images(run: Run, data: Data, count: int | None) -> Tensor:
    """Return the images that are mixed, uint8 `[image, channel, height, width]`."""
    samples = data.train
    total = data.count("train")
    count = total if count is None else count
    if not 3 <= count <= total:
        raise UserError(f"images={count} must be 3 or more, and at most the {total} training images.")
    # Drawn by the run's seed: another seed sees other images.
    places = torch.randperm(total, generator=generator(run.seed_of("images")))[:count].sort().values
    read = (
        samples.read_batch(places if samples.is_resident else places.tolist()) if isinstance(samples, Samples) else ()
    )
    if not read or read[0].dtype != torch.uint8:
        raise UserError("active-mixup mixes images of 8 bits, as data by name have them, and these are others.")
    images: Tensor = read[0].cpu()
    return images


def _learn(run: Run, number: int, make_student: Callable[[str], nn.Module], learnt: Answered, data: Data) -> nn.Module:
    """Return a new student that has learned everything answered so far."""
    name = f"round-{number}"
    # Each round has initial weights of its own.
    return run.fit(name, BornAgain(make_student(name), TableTeacher(learnt.logits)), learnt.data(data))


def _ask(run: Run, stage: str, teacher: Teacher, images: Tensor, data: Data) -> Tensor:
    """Return the teacher's logits for images, `[image, class]`, asked once in a run."""
    device = device_type(run.training.device)

    def ask(part: Tensor) -> Tensor:
        teacher.to(device)
        batches = (Batch(inputs=as_inputs(some).to(device)) for some in torch.split(part, _AT_ONCE))
        return torch.cat([wide(teacher(batch).logits).cpu() for batch in batches])

    found = []
    for number, part in enumerate(torch.split(images, _STORED)):
        found += [
            run.stage(
                f"{stage}-{number}",
                lambda part=part: ask(part),  # type: ignore[misc]
                # Of one answer, because a rehearsal may neither cost nor take long.
                rehearse=lambda part=part: ask(part[:1]).expand(len(part), -1).contiguous(),  # type: ignore[misc]
                images=digests.of_tensors({"images": part}),
                teacher=teacher.identity(),
            )
        ]
    return torch.cat(found)


def _chosen(
    run: Run,
    number: int,
    network: nn.Module,
    images: Tensor,
    taken: Tensor,
    count: int,
    selection: Selection,
    candidates: int | None,
) -> Mixtures:
    """Return the mixtures of a round, chosen once in a run."""
    size, chance = pool_size(len(images)), generator(run.seed_of(f"selection-{number}"))

    def at_random() -> Mixtures:
        pairs = drawn(size, count, taken, chance)
        return Mixtures(pairs, torch.randint(len(SHARES), (len(pairs),), generator=chance))

    def unsure() -> Mixtures:
        device = device_type(run.training.device)
        pairs = free(size, taken) if candidates is None else drawn(size, candidates, taken, chance)
        run.reporter.note(f"Round {number}: {len(pairs):,} pairs are scored, {len(pairs) * len(SHARES):,} mixtures.")
        return least_confident(network.to(device), images.to(device), pairs, count)

    def plain(choose: Callable[[], Mixtures]) -> Callable[[], tuple[Tensor, Tensor]]:
        # Stages store tensors, and no objects.
        def make() -> tuple[Tensor, Tensor]:
            found = choose()
            return found.pairs, found.shares

        return make

    made = run.stage(
        f"selection-{number}",
        plain(unsure if selection == "confidence" else at_random),
        rehearse=plain(at_random),
        network=digests.of_tensors(network.state_dict()),
        images=digests.of_tensors({"images": images, "taken": taken}),
        count=count,
        selection=selection,
        candidates=candidates,
    )
    return Mixtures(*made)


def _point(run: Run, data: Data, queries: int) -> list[tuple[int, float]]:
    """Return the number of queries and the test score of the last training; nothing where none was measured."""
    if not run.fitted:
        return []
    score = run.fitted[-1].scores[run.training.keep].get(f"test_{data.task.primary}")
    return [] if score is None else [(queries, score)]
