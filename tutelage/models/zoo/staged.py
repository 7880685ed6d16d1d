"""The common shape of the networks in this folder: a stem, stages, a tail, a pool and a classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn


class Staged(nn.Module):
    """An image classifier whose intermediate maps are the outputs of named submodules.

    The submodules are `stem`, `layer1`, `layer2`, ..., `tail`, `pool` and `classifier`, called in this order, so a hook
    on a stage reads the map that the distillation literature means, and a hook on `classifier` reads the embedding.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        classifier: nn.Linear,
        *,
        tail: nn.Module | None = None,
        pool: nn.Module | None = None,
        initialize: Callable[[nn.Module], None] | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            stem: From images `[B, C, H, W]` to the first map.
            stages: Each from the map before to its own.
            classifier: From the embedding `[B, D]` to logits `[B, K]`.
            tail: What lies between the last map and the pool; nothing by default.
            pool: From the last map, or the tail's, to the embedding; the spatial mean by default.
            initialize: Called with every submodule after PyTorch's own initialisation.
        """
        super().__init__()
        self.stem = stem
        for number, stage in enumerate(stages, start=1):
            self.add_module(f"layer{number}", stage)
        self.tail = nn.Identity() if tail is None else tail
        self.pool = nn.AdaptiveAvgPool2d(1) if pool is None else pool
        self.classifier = classifier
        self.stage_names = ("stem", *(f"layer{number + 1}" for number in range(len(stages))))
        self._initialize = initialize
        self.reset_parameters()

    @property
    def classifies_last_map(self) -> bool:
        """Whether the logits are `classifier(mean(last map))`, as methods that reuse a classifier need."""
        return isinstance(self.tail, nn.Identity) and isinstance(self.pool, nn.AdaptiveAvgPool2d)

    def reset_parameters(self) -> None:
        """Apply the network's own initialisation on top of what its submodules did for themselves."""
        if self._initialize is not None:
            self.apply(self._initialize)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits `[B, K]` of images `[B, C, H, W]`."""
        maps = inputs
        for name in self.stage_names:
            maps = self.get_submodule(name)(maps)
        logits: Tensor = self.classifier(self.pool(self.tail(maps)).flatten(1))
        return logits


def kaiming_fan_out(module: nn.Module) -> None:
    """Initialise a convolution as the distillation literature's ResNets do: Kaiming-normal over the outputs."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
