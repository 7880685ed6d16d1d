"""Ensemble distillation: the student learns the mean of the members' probabilities."""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.core.method import Method, Progress, Update
from tutelage.core.registry import register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch, Output
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import check_shapes, check_temperature, log_mean_probability, wide
from tutelage.methods.parts.annealing import Annealing
from tutelage.methods.parts.papers import ENDD, HINTON
from tutelage.models.ensemble import Ensemble
from tutelage.system.console import Reporter

# A check of the conformance suite that no method on members can pass.
MEMBERS_ALONE = {"accepts-other-teachers": "a recording has one answer, the mean of the members, not what each says"}


@register(
    "end", papers=[HINTON, ENDD], losses=["end_loss"], reads={"classes"}, family="ensembles", exceptions=MEMBERS_ALONE
)
class EnD(Method):
    r"""Ensemble distillation: the student matches the mean of the members' probabilities, without labels.

    $$ L = T^2 \, \mathrm{KL}\Big(\frac{1}{M} \sum_{m=1}^M \mathrm{softmax}(z_m / T) \,\Big\|\,
    \mathrm{softmax}(z / T)\Big) $$

    The student inherits the ensemble's accuracy and calibration, and of its uncertainty only the total; what the
    members disagree about is lost, which `endd` keeps. Give several teachers, `--teacher A B C`, or `--ensemble 5`. $T$
    stays for a share of the run, falls in a straight line to 1, and stays there: the student then matches what the
    ensemble predicts. With `temperature=1` there is no annealing.

    Args:
        student: The network to train.
        teacher: The ensemble; any other teacher is an ensemble of one.
        reporter: Receives a note if the ensemble has only one member.
        temperature: $T$ of the beginning, 1 or above.
        hold: Share of the run over which $T$ stays.
        fall: Share of the run over which $T$ falls to 1.

    Raises:
        UserError: If the temperature is below 1, a share is negative, both together exceed 1, or the teacher is a
            recording, which holds only the mean of the ensemble.

    Paper: Malinin, Mlodozeniec, Gales, Ensemble Distribution Distillation, ICLR 2020, where it is the baseline; Hinton,
        Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015.

    Differences: The authors' code averages the soft cross-entropy over the classes as well, which makes it $K$ times
        smaller; here it is summed, and the KL divergence, which has the same gradient, is zero where both agree. Their
        temperature falls by the epoch, here by the batch. The values of their runs are not known: 10 and thirds of the
        run are those of a published reproduction of `endd`. The members see the augmented image that the student sees,
        the authors' the image itself.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        reporter: Reporter | None = None,
        *,
        temperature: float = 10.0,
        hold: float = 1 / 3,
        fall: float = 1 / 3,
    ) -> None:
        refuse_recordings(teacher, "end")
        super().__init__()
        self.temperature = Annealing(temperature=temperature, hold=hold, fall=fall)
        self.student, self.teacher = FeatureExtractor(student), teacher
        if reporter is not None and is_single(teacher):
            reporter.note("end has only one teacher here: give several, --teacher A B C, or --ensemble 5.", once=True)

    def step(self, batch: Batch, progress: Progress) -> Iterator[Update]:
        """Yield the loss as `end`."""
        members = members_of(self.teacher(batch))
        yield Update({"end": end_loss(self.student(batch.inputs).logits, members, self.temperature(progress))})


def end_loss(logits: Tensor, members: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Return $T^2 \, \mathrm{KL}(\bar\pi_T \,\|\, p_T)$ with the mean $\bar\pi_T$ of the members' softened answers.

    It is the mean over the batch and its places.

    Args:
        logits: `[batch, class]` (or `[batch, class, ...]`).
        members: The members' logits `[member, batch, class, ...]`; no gradient flows into them.
        temperature: $T$, which divides both.

    Raises:
        ValueError: If the shapes do not fit each other, or the temperature is not above zero.
    """
    check_shapes(logits, members[0])
    check_temperature(temperature)
    student = F.log_softmax(wide(logits) / temperature, dim=1)
    # The mean of the probabilities, not of the logits: it is what the ensemble predicts.
    target = log_mean_probability(wide(members.detach()) / temperature)
    # Batch times places. The "batchmean" of `kl_div` would divide by the batch alone.
    rows = student.numel() // student.shape[1]
    return F.kl_div(student, target, reduction="sum", log_target=True) / rows * temperature**2


def members_of(answer: Output) -> Tensor:
    """Return the members' logits `[member, batch, class]`; an answer without members is an ensemble of one."""
    return answer.logits[None] if answer.members is None else answer.members


def is_single(teacher: Teacher) -> bool:
    """Return whether a teacher is known to be one network."""
    # A black box or a recording does not tell how many networks are behind it.
    network = teacher.as_network()
    return network is not None and (not isinstance(network, Ensemble) or len(network.networks) == 1)


def refuse_recordings(teacher: Teacher, method: str) -> None:
    """Refuse a recording, which holds one answer: for an ensemble, the mean of its members.

    Args:
        teacher: Any teacher, with others inside it or not.
        method: The name of the method that learns from members.

    Raises:
        UserError: If its answers are recorded.
    """
    teacher.must_be_live(
        f"{method} learns from the answers of each member of an ensemble, and a recording holds only their mean",
        "pass the networks themselves, --teacher A B C, or learn the mean from the recording by kd",
    )
