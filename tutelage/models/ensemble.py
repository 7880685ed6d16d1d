"""Several networks as one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.losses import log_mean_probability
from tutelage.models.answers import answer


class Ensemble(nn.Module):
    r"""Several networks as one. Its logits are the log of the members' mean probability.

    $\log \frac{1}{M} \sum_m \mathrm{softmax}(z_m)$, in log-space.

    Args:
        networks: The members, at least one, with the same classes.
    """

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    # Positional only, so that `inputs` may also be the name of a member's own input.
    def forward(self, inputs: Any = None, /, **named: Any) -> Tensor:
        """Return `[batch, class]`.

        Args:
            inputs: Inputs of each member.
            **named: Inputs by keyword instead, for members that take them so.
        """
        return log_mean_probability(self.member_logits(named if inputs is None else inputs))

    def member_logits(self, inputs: Any) -> Tensor:
        """Return the logits of each member, `[member, batch, class]`; a mapping goes to the members by keyword."""
        return torch.stack([answer(network, inputs) for network in self.networks])
