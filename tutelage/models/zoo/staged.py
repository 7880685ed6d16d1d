"""The common shape of the networks in this folder: a stem, stages, a tail, a pool and a classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn


class Staged(nn.Module):
    """An image classifier whose intermediate maps are the outputs of named submodules.

    The submodules are `stem`, `layer1`, `layer2`, ..., `tail`, `pool` and `classifier`, called in this order. So the
    output of a stage is the map that the distillation literature means, and the input of `classifier` is the embedding.
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
            stem: Maps images `[B, C, H, W]` to the first feature map.
            stages: Each maps the previous feature map to its own.
            classifier: Maps the embedding `[B, D]` to logits `[B, K]`.
            tail: The layers between the last feature map and the pool; none by default.
            pool: Maps the output of the last stage or the tail to the embedding; the spatial mean by default.
            initialize: Called with every submodule after PyTorch's own initialisation.
        """
        super().__init__()
        self.stem = stem
        for number, stage in enumerate(stages, start=1):
            self.add_module(f"layer{number}", stage)
        # An identity rather than nothing, so that every network has the same named parts.
        self.tail = nn.Identity() if tail is None else tail
        self.pool = nn.AdaptiveAvgPool2d(1) if pool is None else pool
        self.classifier = classifier
        self.stage_names = ("stem", *(f"layer{number + 1}" for number in range(len(stages))))
        # Kept, so that `fresh` can repeat the initialisation through `reset_parameters`.
        self._initialize = initialize
        self.reset_parameters()

    @property
    def classifies_last_map(self) -> bool:
        """Whether the logits are `classifier(mean(last map))`, as methods that reuse a classifier need."""
        return isinstance(self.tail, nn.Identity) and isinstance(self.pool, nn.AdaptiveAvgPool2d)

    def reset_parameters(self) -> None:
        """Apply the network's own initialisation, after that of its submodules."""
        if self._initialize is not None:
            self.apply(self._initialize)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits `[B, K]` of images `[B, C, H, W]`."""
        maps = inputs
        for name in self.stage_names:
            # Calling each stage as a module runs the hooks on it.
            maps = self.get_submodule(name)(maps)
        logits: Tensor = self.classifier(self.pool(self.tail(maps)).flatten(1))
        return logits


def kaiming_fan_out(module: nn.Module) -> None:
    """Initialise a convolution as the distillation literature's ResNets do: Kaiming-normal over the outputs."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
