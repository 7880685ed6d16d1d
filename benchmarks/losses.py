"""What the losses cost beside their textbook formulas: bytes kept for the backward pass, most bytes at once, time.

    OMP_NUM_THREADS=1 python benchmarks/losses.py            (--only kd, --rounds 11)

Each loss is computed with its gradient, in turns with the formula as one would write it down, on the same inputs:
student's and teacher's answers or maps, the maps channels-last. What the inputs take is not counted. The bytes are the
same at every run; of the times the medians are printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from tutelage.losses import kd_loss
from tutelage.methods.at import attention_loss
from tutelage.methods.crd import EPS, contrastive_loss
from tutelage.methods.dkd import decouple
from tutelage.methods.fsp import fsp_loss, fsp_matrix
from tutelage.methods.mlld import gram_loss, instance_loss
from tutelage.methods.quest import WordPredictor, quest_loss, word_logits
from tutelage.methods.sp import similarity_loss
from tutelage.methods.vid import gaussian_loss

Loss = Callable[[Tensor, Tensor], Tensor]

TEMPERATURE, TEMPERATURES = 4.0, (4.0, 3.0, 5.0, 2.0, 6.0)


@dataclass(frozen=True)
class Case:
    """A loss of two tensors of one shape, student's and teacher's, as we have it and as a textbook has it."""

    shape: tuple[int, ...]
    ours: Loss
    textbook: Loss


def kd(student: Tensor, teacher: Tensor) -> Tensor:
    """Hinton's loss as everybody writes it."""
    log_student = F.log_softmax(student.float() / TEMPERATURE, 1)
    probabilities = F.softmax(teacher.float() / TEMPERATURE, 1)
    rows = student.numel() // student.shape[1]
    return F.kl_div(log_student, probabilities, reduction="sum") / rows * TEMPERATURE**2


def labels_of(logits: Tensor) -> Tensor:
    """Return some labels."""
    return torch.arange(len(logits)) % logits.shape[1]


def dkd_ours(student: Tensor, teacher: Tensor) -> Tensor:
    """Both parts of decoupled distillation."""
    ours, theirs = (decouple(logits.float() / TEMPERATURE, labels_of(logits)) for logits in (student, teacher))
    return kd_loss(ours[0], theirs[0], 1.0) + 8 * kd_loss(ours[1], theirs[1], 1.0)


def dkd(student: Tensor, teacher: Tensor) -> Tensor:
    """The same, with the label's class masked out of the logits."""
    mask = F.one_hot(labels_of(student), student.shape[1])
    ours, theirs = (F.softmax(logits.float() / TEMPERATURE, 1) for logits in (student, teacher))
    pairs = [torch.stack([(p * mask).sum(1), (p * (1 - mask)).sum(1)], 1) for p in (ours, theirs)]
    rest = [F.log_softmax(logits.float() / TEMPERATURE - 1000 * mask, 1) for logits in (student, teacher)]
    tckd = F.kl_div(pairs[0].log(), pairs[1], reduction="batchmean")
    return tckd + 8 * F.kl_div(rest[0], rest[1].exp(), reduction="batchmean")


def sp(student: Tensor, teacher: Tensor) -> Tensor:
    """Similarity-preserving distillation."""
    rows = (maps.float().flatten(1) for maps in (student, teacher))
    ours, theirs = (F.normalize(flat @ flat.T) for flat in rows)
    return (ours - theirs).square().mean()


def at(student: Tensor, teacher: Tensor) -> Tensor:
    """Attention transfer."""
    ours, theirs = (F.normalize(maps.float().square().mean(1).flatten(1)) for maps in (student, teacher))
    return (ours - theirs).square().mean()


def fsp_ours(student: Tensor, teacher: Tensor) -> Tensor:
    """One section of FSP, whose input stands for its output as well."""
    return fsp_loss(fsp_matrix(student, student.roll(1, 0)), fsp_matrix(teacher, teacher.roll(1, 0)))


def fsp(student: Tensor, teacher: Tensor) -> Tensor:
    """The same."""
    ours, theirs = (
        torch.bmm(maps.float().flatten(2), maps.roll(1, 0).float().flatten(2).mT) / maps[0, 0].numel()
        for maps in (student, teacher)
    )
    return (ours - theirs).square().mean()


def vid_ours(student: Tensor, teacher: Tensor) -> Tensor:
    """The likelihood of variational information distillation, with variances that are trained."""
    return gaussian_loss(student, teacher, torch.ones(student.shape[1], requires_grad=True))


def vid(student: Tensor, teacher: Tensor) -> Tensor:
    """The same."""
    variance = torch.ones(student.shape[1], 1, 1, requires_grad=True)
    return 0.5 * ((student.float() - teacher.float()).square() / variance + variance.log()).mean()


def mlld_ours(student: Tensor, teacher: Tensor) -> Tensor:
    """The three terms of multi-level logit distillation, of one view."""
    ours, theirs = (
        torch.stack([(logits.float() / t).softmax(1) for t in TEMPERATURES]) for logits in (student, teacher)
    )
    instance = instance_loss(student.float(), teacher.float(), TEMPERATURES)
    return instance + gram_loss(ours, theirs) + gram_loss(ours.mT, theirs.mT)


def mlld(student: Tensor, teacher: Tensor) -> Tensor:
    """The same."""
    total = student.new_zeros(())
    for t in TEMPERATURES:
        log_student, theirs = (student.float() / t).log_softmax(1), (teacher.float() / t).softmax(1)
        ours = (student.float() / t).softmax(1)
        total = total + F.kl_div(log_student, theirs, reduction="batchmean") * t**2
        total = total + (theirs @ theirs.T - ours @ ours.T).square().sum() / len(ours)
        total = total + (theirs.T @ theirs - ours.T @ ours).square().sum() / ours.shape[1]
    return total


def crd_ours(student: Tensor, teacher: Tensor) -> Tensor:
    """The contrastive loss of CRD, of log-probabilities."""
    return contrastive_loss(student.float(), 50_000)


def crd(student: Tensor, teacher: Tensor) -> Tensor:
    """The same, of probabilities."""
    probabilities, noise = student.float().exp(), (student.shape[1] - 1) / 50_000
    positive = (probabilities[:, 0] / (probabilities[:, 0] + noise + EPS)).log().sum()
    negative = (noise / (probabilities[:, 1:] + noise + EPS)).log().sum()
    return -(positive + negative) / len(student)


class Quest:
    """QuEST's loss on maps, with a codebook."""

    def __init__(self, channels: int, words: int = 2048) -> None:
        self.codebook = torch.randn(words, channels)
        self.predictor = WordPredictor(channels, self.codebook)

    def ours(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss as we have it."""
        return quest_loss(self.predictor(student), word_logits(teacher, self.codebook))

    def textbook(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the same by the formula."""
        ours, theirs = (maps.float().movedim(1, 3).flatten(0, 2) for maps in (student, teacher))
        cosines = F.normalize(ours) @ F.normalize(self.predictor.weight).T
        target = (-torch.cdist(theirs, self.codebook).square() / 0.2).softmax(1)
        log = (self.predictor.cosine_scale * cosines).log_softmax(1)
        return F.kl_div(log, target, reduction="batchmean")


def cases() -> Mapping[str, Case]:
    """Return all losses by name."""
    quest = Quest(64)
    return {
        "kd, CIFAR-100": Case((64, 100), kd_loss, kd),
        "kd, ImageNet": Case((256, 1000), kd_loss, kd),
        "kd, a vocabulary": Case((64, 32000), kd_loss, kd),
        "kd, dense": Case((8, 21, 128, 128), kd_loss, kd),
        "dkd": Case((256, 1000), dkd_ours, dkd),
        "mlld, CIFAR-100": Case((64, 100), mlld_ours, mlld),
        "mlld, ImageNet": Case((64, 1000), mlld_ours, mlld),
        "sp": Case((64, 256, 8, 8), similarity_loss, sp),
        "at": Case((64, 64, 32, 32), attention_loss, at),
        "fsp": Case((64, 64, 32, 32), fsp_ours, fsp),
        "vid": Case((64, 64, 32, 32), vid_ours, vid),
        "crd": Case((64, 16385), crd_ours, crd),
        "quest": Case((16, 64, 8, 8), quest.ours, quest.textbook),
    }


def tensors(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return what the student and what the teacher answers; maps are channels-last."""
    both = torch.randn(2, *case.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    if len(case.shape) == 4:
        both = torch.stack([both[0], both[1]]).permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    return both[0].clone(memory_format=torch.preserve_format).requires_grad_(), both[1].clone()


def saved_bytes(loss: Callable[[], Tensor], inputs: Sequence[Tensor]) -> int:
    """Return the bytes that autograd keeps for the backward pass, beside the inputs."""
    own = {tensor.untyped_storage().data_ptr() for tensor in inputs}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        total = loss()
    # Only now may what was kept be freed, and its address given to something else.
    return sum(kept.values()) if total.ndim == 0 else 0


def peak_bytes(step: Callable[[], object]) -> int:
    """Return the most bytes that a step has at once, beside what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def compare(variants: Mapping[str, Loss], inputs: Sequence[Tensor], rounds: int) -> Mapping[str, tuple[float, ...]]:
    """Return megabytes kept, megabytes at most, and milliseconds, of each variant, run in turns."""
    student = inputs[0]
    steps = {name: lambda loss=loss: torch.autograd.grad(loss(*inputs), student) for name, loss in variants.items()}
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if number:
                times[name].append(time.perf_counter() - started)
    return {
        name: (
            saved_bytes(lambda loss=loss: loss(*inputs), inputs) / 1e6,
            peak_bytes(steps[name]) / 1e6,
            1e3 * statistics.median(times[name]),
        )
        for name, loss in variants.items()
    }


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose names begin so")
    parser.add_argument("--rounds", type=int, default=11)
    given = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, median of {given.rounds} rounds; textbook / ours")
    print(f"{'loss':18}{'shape':22}{'dtype':10}{'inputs MB':>10}{'kept MB':>18}{'at once MB':>18}{'ms':>20}")
    for name, case in cases().items():
        if not name.startswith(given.only):
            continue
        for dtype in (torch.float32, torch.bfloat16):
            inputs = tensors(case, dtype)
            found = compare({"textbook": case.textbook, "ours": case.ours}, inputs, given.rounds)
            size = sum(tensor.nbytes for tensor in inputs) / 1e6
            columns = [f"{old:.2f} / {new:.2f}" for old, new in zip(found["textbook"], found["ours"], strict=True)]
            shape = "x".join(map(str, case.shape))
            print(f"{name:18}{shape:22}{str(dtype)[6:]:10}{size:10.2f}", *(f"{text:>18}" for text in columns))


if __name__ == "__main__":
    main()
