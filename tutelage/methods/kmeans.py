"""k-means on the features of a network that knows some classes: the floor of what discovers others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.registry import Paper, register
from tutelage.data.dataset import Data
from tutelage.evaluation.scores import EVALUATION_BATCH
from tutelage.features.adapting import adapting
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import UNLABELLED
from tutelage.methods.parts.known_classes import learn_known
from tutelage.methods.parts.prototypes import NovelHead, OpenHead, head_of, put_head
from tutelage.models.modes import evaluating
from tutelage.system.devices import device_type
from tutelage.training.run import Run

K_MEANS = Paper(
    key="arthur2007kmeans",
    title="k-means++: The Advantages of Careful Seeding",
    authors="Arthur, David and Vassilvitskii, Sergei",
    venue="ACM-SIAM Symposium on Discrete Algorithms",
    year=2007,
)
# The best of several starts, as k-means depends on where it starts.
_STARTS = 10


@register(
    "kmeans",
    papers=[K_MEANS],
    losses=["nearest_centre_loss"],
    reads={"targets", "images", "novel"},
    family="labels",
)
def kmeans(
    run: Run,
    make_student: Callable[[], nn.Module],
    data: Data,
    example: Any,
    *,
    temperature: float = 0.1,
    known_epochs: int = 0,
) -> nn.Module:
    r"""k-means on the features of the known classes' network: the floor of novel class discovery.

    $$ \min_{c_1 \dots c_U} \sum_i \min_u \| f_i - c_u \|^2, \quad \|f_i\| = 1 $$

    A network learns the known classes, as in the first stage of `cr-kd`. The features of the unlabelled training
    samples, brought to length one, are clustered, and the directions of the centres are the prototypes of the novel
    classes. Nothing is trained after that.

    Args:
        run: The run whose stages these are.
        make_student: Makes the network.
        data: Data with novel classes (`--task discovery`).
        example: Inputs for one forward pass.
        temperature: Divides all cosines.
        known_epochs: Epochs of the first stage; 0 for as many as the run has.

    Raises:
        UserError: If a number is out of its range, or the network's classifier cannot be found.

    Paper: Arthur and Vassilvitskii, k-means++: The Advantages of Careful Seeding, SODA 2007.

    Differences: Test samples go to the centre of the nearest direction, so that the network answers over all classes.
    """
    network = learn_known(run, make_student, data, example, temperature=temperature, epochs=known_epochs)
    name, head = head_of(network)
    clusters = data.num_classes - data.task.known

    def cluster() -> Tensor:
        features = unlabelled_features(network, f"{name}:in", data, device=device_type(run.training.device))
        found = centres(features, clusters, seed=run.seed_of("clusters"))
        distance = float(nearest_centre_loss(features, found)) / len(features)
        run.reporter.note(f"k-means: samples are at a mean squared distance of {distance:.3g} from {clusters} centres.")
        return found

    found = run.stage("clusters", cluster, rehearse=lambda: torch.eye(clusters, head.known.weight.shape[1]))
    novel = NovelHead(head.known.weight.shape[1], 0, 0, clusters)
    with torch.no_grad():
        novel.prototypes.weight.copy_(F.normalize(found, dim=1))
    put_head(network, adapting(OpenHead(head.known, [novel], temperature), network))
    return run.fit("distill", Clustered(network), data, epochs=0)


class Clustered(Method):
    """A network that is measured and not trained.

    Args:
        network: The network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.student = FeatureExtractor(network)


def nearest_centre_loss(features: Tensor, centres: Tensor) -> Tensor:
    r"""Return $\sum_i \min_u \| f_i - c_u \|^2$, a scalar.

    Args:
        features: `[sample, channel]`.
        centres: `[cluster, channel]`.
    """
    return torch.cdist(features, centres).square().amin(1).sum()


def centres(features: Tensor, clusters: int, *, seed: int) -> Tensor:
    """Return the centres of k-means, `[cluster, channel]`: the best of ten starts.

    Args:
        features: `[sample, channel]`.
        clusters: Their number.
        seed: Seed of the starts.
    """
    from sklearn.cluster import KMeans

    found = KMeans(clusters, n_init=_STARTS, random_state=seed % 2**32).fit(features.double().numpy())
    return torch.from_numpy(found.cluster_centers_).float()


@torch.no_grad()
def unlabelled_features(network: nn.Module, layer: str, data: Data, *, device: str) -> Tensor:
    """Return the features of all unlabelled training samples without augmentation, of length one, on the CPU.

    Args:
        network: The network. It ends on the CPU.
        layer: The layer to read.
        data: The data.
        device: Where to compute.
    """
    reader, found = FeatureExtractor(network.to(device), [layer], example=None, logits=True), []
    with evaluating(reader):
        for batch in data.loader("train", train=False, batch_size=EVALUATION_BATCH, device=device).epoch(0):
            chosen = batch.labels == UNLABELLED
            if chosen.any():
                found.append(F.normalize(reader(batch.inputs[chosen]).features[layer].flatten(1).float(), dim=1).cpu())
    reader.release().to("cpu")
    return torch.cat(found)
