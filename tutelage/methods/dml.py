"""Deep mutual learning: networks without a teacher, each of which matches the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tutelage.core.method import Method, OptimizerSpec, Progress, Update
from tutelage.core.registry import Paper, register
from tutelage.data.batch import Batch
from tutelage.data.criterion import CROSS_ENTROPY
from tutelage.data.sources import Data
from tutelage.errors import UserError
from tutelage.losses import check_temperature, kd_loss, log_mean_probability, wide
from tutelage.methods.parts.peers import Peers, gather
from tutelage.models.modes import keeping_statistics

ZHANG = Paper(
    key="zhang2018deep",
    title="Deep Mutual Learning",
    authors="Zhang, Ying and Xiang, Tao and Hospedales, Timothy M. and Lu, Huchuan",
    venue="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
    year=2018,
    arxiv="1706.00384",
)

Turn = Literal["simultaneous", "sequential"]
Peer = Literal["mean", "sum", "mean-probability"]


@register(
    "dml",
    papers=[ZHANG],
    losses=["mutual_loss"],
    reads={"targets", "answers"},
    reads_if={"peer=mean-probability": {"classes"}},
    family="peers",
)
class DML(Method):
    r"""Deep mutual learning: networks without a teacher, each of which matches what the others answer.

    $$ L_k = H(q, p_k) + \frac{1}{K - 1} \sum_{l \ne k} T^2 \, \mathrm{KL}(p^l_T \,\|\, p^k_T) $$

    Of $K$ networks each has its own loss and its own optimizer; the others' answers are constants to it. The first is
    deployed, all are kept, and their mean probability is scored as `ensemble`. Networks may be of different kinds.

    `simultaneous` takes one forward pass of each network for a batch: all losses read the same answers. `sequential` is
    the paper's algorithm: as soon as a network is updated it answers anew, so that the next ones learn from what it
    now knows. That takes $2 K - 1$ forward passes, $K - 1$ of them without gradient. These leave the running statistics
    of batch norm alone, which have seen the batch already.

    Args:
        students: The networks, the deployed one first.
        make_student: Makes more networks of the first architecture, from the seed of their name.
        data: The data, whose task says what the answer of all networks together is; classification by default.
        networks: Number of networks. If fewer are given, fresh copies of the first architecture are added; if more, the
            first ones are taken. By default as many as are given, but at least two.
        update: `simultaneous` or `sequential`.
        peer: `mean` over the other networks, `sum`, or `mean-probability`: one divergence, from the others' mean
            probability (the paper's DML_e).
        temperature: $T$, which softens all, above zero.
        t_squared: Whether the divergence is multiplied by $T^2$.
        lr_scales: Factor on the run's learning rate, one for all networks or one for each, such as `[1,0.1]`.
        weight_decay_scales: Factor on the run's weight decay, one for all networks or one for each.

    Raises:
        UserError: If there are fewer than two networks, two start from the same weights, the temperature is not above
            zero or the factors do not fit.

    Paper: Zhang, Xiang, Hospedales, Lu, Deep Mutual Learning, CVPR 2018.

    Differences: The default is `simultaneous`, which is cheaper; the paper's algorithm is `sequential`. The authors'
        code is `peer=sum` (the same for two networks); it gives each network a different batch, and adds 1e-8 inside
        the logarithms, which are computed in log-space here. The paper has no temperature. With `temperature=3` this is
        the logit step of `afd` for two networks.
    """

    def __init__(
        self,
        students: Sequence[nn.Module],
        make_student: Callable[[str], nn.Module] | None = None,
        data: Data | None = None,
        *,
        networks: int | None = None,
        update: Turn = "simultaneous",
        peer: Peer = "mean",
        temperature: float = 1.0,
        t_squared: bool = True,
        lr_scales: Sequence[float] = (1.0,),
        weight_decay_scales: Sequence[float] = (1.0,),
    ) -> None:
        if not temperature > 0:
            raise UserError(f"temperature={temperature} must be above zero.")
        super().__init__()
        found = gather(students, make_student, networks)
        criterion = CROSS_ENTROPY if data is None else data.task.criterion
        self.peers = Peers(found, lr_scales=lr_scales, weight_decay_scales=weight_decay_scales, criterion=criterion)
        self.update, self.peer, self.temperature, self.t_squared = update, peer, temperature, t_squared

    def step(self, batch: Batch, progress: Progress) -> Iterator[Update]:
        """Yield for each network the cross-entropy as `ce` and the divergence from the others as `peers`."""
        # One pass of each network serves all updates: a step changes one network only, so the other graphs stay valid.
        logits = [output.logits for output in self.peers.outputs(batch.inputs)]
        last = len(logits) - 1
        for number, (name, network) in enumerate(self.peers.items()):
            others = [other.detach() for position, other in enumerate(logits) if position != number]
            own = logits[number]
            losses = {"ce": batch.loss(own), "peers": self._divergence(batch, own, others)}
            yield Update(losses | self.auxiliary(batch, network), name)
            # Nobody reads the last network's new answer, so it is not computed.
            if self.update == "sequential" and number < last:
                # Code after the yield runs after the optimizer's step, so this answer is the updated network's.
                with torch.no_grad(), keeping_statistics(network):
                    logits[number] = network(batch.inputs).logits

    def optimizers(self) -> Mapping[str, OptimizerSpec]:
        """Return an optimizer for each network."""
        return self.peers.optimizers()

    def forward(self, inputs: Any) -> Mapping[str, Tensor]:
        """Return the logits of each network, and of all as `ensemble`."""
        return self.peers.predictions(inputs)

    def export(self) -> nn.Module:
        """Return the first network."""
        return self.peers.first()

    def members(self) -> Mapping[str, nn.Module]:
        """Return the other networks."""
        return self.peers.others()

    def _divergence(self, batch: Batch, own: Tensor, others: Sequence[Tensor]) -> Tensor:
        """Return the divergence of a network from the answers of the others, each `[batch, class, ...]`."""
        return mutual_loss(
            own,
            others,
            self.temperature,
            peer=self.peer,
            t_squared=self.t_squared,
            divergence=batch.criterion.divergence,
        )


def mutual_loss(
    own_logits: Tensor,
    peer_logits: Sequence[Tensor],
    temperature: float = 1.0,
    *,
    peer: Peer = "mean",
    t_squared: bool = True,
    divergence: Callable[..., Tensor] = kd_loss,
) -> Tensor:
    r"""Return $\frac{1}{K - 1} \sum_l T^2 \, \mathrm{KL}(p^l_T \,\|\, p_T)$: how far a network is from its peers.

    Args:
        own_logits: The network's, `[batch, class]` (or `[batch, class, ...]`).
        peer_logits: Those of each other network; no gradient flows into them.
        temperature: $T$, which divides all.
        peer: `mean` over the others, their `sum`, or one divergence from their `mean-probability`.
        t_squared: Whether to multiply by $T^2$.
        divergence: The divergence of two answers, called as `kd_loss` is.

    Raises:
        ValueError: If the shapes differ, or the temperature is not above zero.
    """
    if peer == "mean-probability":
        check_temperature(temperature)
        # Logits whose softmax at T is the mean of the softened answers.
        mean = log_mean_probability(wide(torch.stack(list(peer_logits))) / temperature) * temperature
        return kd_loss(own_logits, mean, temperature, t_squared=t_squared)
    # Of the data's task, where the method calls; the mean probability above is defined for classes alone.
    terms = [divergence(own_logits, one, temperature, t_squared=t_squared) for one in peer_logits]
    return torch.stack(terms).sum() if peer == "sum" else torch.stack(terms).mean()
