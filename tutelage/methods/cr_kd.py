"""CR-KD: novel classes are found among unlabelled samples, and keep their relations to the known ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from tutelage.core.registry import Paper, register
from tutelage.data.dataset import Data
from tutelage.methods.parts.discovering import Clustering, Heads, Relation, Views, discover
from tutelage.methods.parts.open_losses import assignments, relation_loss, swapped_loss
from tutelage.methods.parts.papers import UNO
from tutelage.training.run import Run

__all__ = ["CR_KD", "assignments", "cr_kd", "relation_loss", "swapped_loss"]

CR_KD = Paper(
    key="gu2023class",
    title="Class-relation Knowledge Distillation for Novel Class Discovery",
    authors="Gu, Peiyan and Zhang, Chuyu and Xu, Ruijie and He, Xuming",
    venue="IEEE/CVF International Conference on Computer Vision",
    year=2023,
    arxiv="2307.09158",
)


@register(
    "cr-kd",
    papers=[CR_KD, UNO],
    losses=["swapped_loss", "relation_loss", "assignments"],
    reads={"targets", "images", "novel"},
    family="relations",
    exceptions={
        "parts-of-a-batch-add-up": "the clusters are balanced, and the relation's weights averaged, over all samples "
        "of a process"
    },
)
def cr_kd(
    run: Run,
    make_student: Callable[[], nn.Module],
    data: Data,
    example: Any,
    batch_size: int = 128,
    *,
    alpha: float = 0.1,
    relation_temperature: float = 4.0,
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
    r"""CR-KD: finds novel classes among unlabelled samples, and keeps how they relate to the known ones.

    $$ L = \frac{1}{H V (M - 1)} \sum_{h, v, w \neq v} H(y^h_v, p^h_w) + \alpha T^2 \, \mathrm{mean}
    \left[ \frac{\eta}{\bar\eta} H(q, p^{known}) \right], \quad \eta = \sum_{k \in known} p_k $$

    First a network learns the known classes; a frozen copy of it is the snapshot. Then it gets $H$ heads of novel
    prototypes and learns on batches of labelled and unlabelled samples. Each sample is there in $M$ views, of which
    every one learns the target of each of the $V = 2$ large ones: the label, or the cluster that Sinkhorn's iterations
    assign so that all clusters are equally large. On unlabelled samples, the answer over the known classes alone is
    drawn to that of the snapshot ($q$), both softened by $T$. A sample counts by how likely the network takes it for
    one of the known classes, and that weight learns too.

    The network that ships answers over all classes, with the novel head whose loss in the last epoch was lowest. The
    weights are those of the last epoch: labels of novel classes choose nothing, and those of known classes cannot tell
    how good the clusters are. The first stage keeps its best epoch on validation samples of known classes.

    Args:
        run: The run whose stages these are.
        make_student: Makes the network.
        data: Data with novel classes (`--task discovery`).
        example: Inputs for one forward pass.
        batch_size: Samples in a batch, each in all its views.
        alpha: $\alpha$, weight of the relation.
        relation_temperature: $T$.
        heads: $H$, number of novel heads.
        hidden: Channels of the hidden layer of a novel head; 0 for prototypes of the embedding itself.
        width: Channels that a novel head's prototypes read.
        temperature: Divides all cosines.
        epsilon: Sharpness of the assignment, 1/80 at least; smaller is sharper.
        iterations: Sinkhorn's iterations.
        strong: The augmentation of the second view, such as `crop:4,flip,colour:0.4`; `auto` is that of the data and
            random tones. The first view has the data's own.
        small_views: Number of further views, which learn and give no targets.
        small: The augmentation of these.
        known_epochs: Epochs of the first stage; 0 for as many as the second has.

    Raises:
        UserError: If a number is out of its range, the network's classifier cannot be found, or the samples are too
            few.

    Paper: Gu et al., Class-relation Knowledge Distillation for Novel Class Discovery, ICCV 2023. The clustering: Fini
        et al., A Unified Objective for Novel Class Discovery, ICCV 2021.

    Differences: A published summary calls the relation a KL; the code's cross-entropy is used, which differs in its
        gradient, because the weight learns. Each batch has labelled and unlabelled samples in the data's proportion.
        The two large views differ in strength, where the authors' have the same distribution; small views are small
        crops at the images' own size. UNO's heads with more clusters than classes are left out. The published first
        stage for CIFAR lacks its number of epochs and has a learning rate of 0.4 for AdamW; here it has the run's
        settings. Several processes balance the clusters of their own samples.
    """
    method = discover(
        run,
        make_student,
        data,
        example,
        batch_size,
        relation=Relation(alpha, relation_temperature, relation_loss),
        heads=Heads(heads, hidden, width),
        clustering=Clustering(temperature, epsilon, iterations, assignments, swapped_loss),
        views=Views(strong=strong, small_views=small_views, small=small),
        known_epochs=known_epochs,
    )
    return run.fit("distill", method, data, keep="last")
