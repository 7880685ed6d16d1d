"""UNO: novel classes are found among unlabelled samples, by one loss for known and novel classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from tutelage.core.registry import register
from tutelage.data.dataset import Data
from tutelage.methods.parts.discovering import Clustering, Heads, Views, discover
from tutelage.methods.parts.open_losses import assignments, swapped_loss
from tutelage.methods.parts.papers import UNO
from tutelage.training.run import Run

__all__ = ["assignments", "swapped_loss", "uno"]


@register(
    "uno",
    papers=[UNO],
    losses=["swapped_loss", "assignments"],
    reads={"targets", "images", "novel"},
    family="labels",
    exceptions={"parts-of-a-batch-add-up": "the clusters are balanced over all samples of a process"},
)
def uno(
    run: Run,
    make_student: Callable[[], nn.Module],
    data: Data,
    example: Any,
    batch_size: int = 128,
    *,
    heads: int = 4,
    hidden: int = 512,
    width: int = 128,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
    strong: str = "auto",
    small_views: int = 0,
    small: str = "resized-crop:0.2:0.5,flip",
    known_epochs: int = 0,
) -> nn.Module:
    r"""UNO: finds novel classes among unlabelled samples, the baseline of `cr-kd`.

    $$ L = \frac{1}{H V (M - 1)} \sum_{h, v, w \neq v} H(y^h_v, p^h_w) $$

    It is `cr-kd` without the relation to the known classes: stages, heads, views and batches are the same, and with one
    seed both start from the same snapshot.

    Args:
        run: The run whose stages these are.
        make_student: Makes the network.
        data: Data with novel classes (`--task discovery`).
        example: Inputs for one forward pass.
        batch_size: Samples in a batch, each in all its views.
        heads: $H$, number of novel heads.
        hidden: Channels of the hidden layer of a novel head; 0 for prototypes of the embedding itself.
        width: Channels that a novel head's prototypes read.
        temperature: Divides all cosines.
        epsilon: Sharpness of the assignment, 1/80 at least; smaller is sharper.
        iterations: Sinkhorn's iterations.
        strong: The augmentation of the second view; `auto` is that of the data and random tones. The first view has
            the data's own.
        small_views: Number of further views, which learn and give no targets.
        small: The augmentation of these.
        known_epochs: Epochs of the first stage; 0 for as many as the second has.

    Raises:
        UserError: If a number is out of its range, the network's classifier cannot be found, or the samples are too
            few.

    Paper: Fini et al., A Unified Objective for Novel Class Discovery, ICCV 2021.

    Differences: Those of `cr-kd`: heads with more clusters than classes are left out, and the two large views differ in
        strength.
    """
    method = discover(
        run,
        make_student,
        data,
        example,
        batch_size,
        relation=None,
        heads=Heads(heads, hidden, width),
        clustering=Clustering(temperature, epsilon, iterations, assignments, swapped_loss),
        views=Views(strong=strong, small_views=small_views, small=small),
        known_epochs=known_epochs,
    )
    return run.fit("distill", method, data, keep="last")
