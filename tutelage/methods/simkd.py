"""SimKD: the student gets the teacher's classifier, and learns the map that it classifies."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.pairing import LayerPair, Seen, reading, taps
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.adapting import adapting, in_one_type
from tutelage.features.anatomy import EMBEDDING, Tap, classified, classifier, classifier_copy
from tutelage.features.extractor import value_at
from tutelage.features.maps import pool_to_smaller
from tutelage.features.padding import padded
from tutelage.features.trace import Trace
from tutelage.models.answers import answer, uncompiled
from tutelage.models.composed import composed
from tutelage.models.copies import copy_of
from tutelage.models.loading import load_network
from tutelage.models.modes import evaluating
from tutelage.models.normalization import Normalized, bare
from tutelage.models.saving import architecture_of
from tutelage.models.spec import NetworkSpec

SIMKD_PAPER = Paper(
    key="chen2022knowledge",
    title="Knowledge Distillation with the Reused Teacher Classifier",
    authors="Chen, Defang and Mei, Jian-Ping and Zhang, Hailin and Wang, Can and Feng, Yan and Chen, Chun",
    venue="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
    year=2022,
    arxiv="2203.14001",
)

FinalReLU = Literal["auto", "yes", "no"]


@register(
    "simkd", papers=[SIMKD_PAPER], losses=["map_distance"], reads={"answers", "sample-answers"}, family="features"
)
class SimKD(Method):
    r"""SimKD: the student ends in the teacher's classifier, and learns only the map that it classifies.

    $$ L = \| P(F_s) - F_t \|^2 / (C H W), \qquad z = W_t \, \mathrm{mean}(P(F_s)) + b_t $$

    The network that is trained, evaluated and deployed is the student's body, the projector $P$ and the teacher's
    frozen classifier; the student's own classifier is gone. No labels are used.

    Args:
        student: The network to train; projector and classifier are put into it.
        teacher: A network whose classifier can be found.
        example: Inputs for one forward pass, from which layers and shapes are known.
        factor: The projector's inner channels are the teacher's divided by this.
        final_relu: Whether the projector ends in a ReLU; `auto` leaves it out where the teacher's map has negative
            values on the example, which it could never reach.
        beta: Weight of the loss.

    Raises:
        UserError: If the factor is below one, the teacher gives only logits, a classifier cannot be found, or the
            student's own layers behind the map cannot carry another width or size; the student is left as it is.

    Paper: Chen et al., Knowledge Distillation with the Reused Teacher Classifier, CVPR 2022.

    Differences: The authors read the end of the last stage, which is right only where pooling and classifier follow it;
        here it is, in both networks, the map whose mean the classifier reads: behind the last normalisation of a WRN,
        behind the last convolution of a ShuffleNetV2 or MobileNetV2. Where there is no such map (a class token, a
        normalisation after the pooling, fully connected layers; in the student also one that ends in a layer which it
        calls elsewhere too), it is the classifier's input as a map of one place.
        The authors always end in a ReLU (`final_relu="yes"`), and shrink the unused classifier by weight decay; here
        it is removed. Maps need not be square.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        example: Any,
        *,
        factor: int = 2,
        final_relu: FinalReLU = "auto",
        beta: float = 1.0,
    ) -> None:
        if factor < 1:
            raise UserError(f"factor={factor} must be 1 or more: it divides the teacher's channels.")
        super().__init__({"feature": beta})
        student, network = uncompiled(student), teacher.inner_network()
        seen = Seen.of(student, teacher, example)
        theirs = classified(network, seen.teacher)
        maps = theirs.layout.to_map(value_at(seen.teacher, theirs.layer))
        # On the example, as no other values of the teacher are known when the network is built.
        relu = bool((maps >= 0).all()) if final_relu == "auto" else final_relu == "yes"
        # A frozen copy, so that the teacher's own classifier stays where it is.
        reused = adapting(classifier_copy(network, seen.teacher), student)
        layer = self._graft(seen.student, theirs, reused, factor=factor, relu=relu)
        # The student has changed, so its layers and shapes are looked up again.
        seen = seen.with_student(student)
        pairs = [LayerPair(taps(student, [layer], seen.student, who="student")[layer], theirs)]
        self.student, self.teacher, self.pairs = reading(student, teacher, pairs, seen, logits=False)

    def _graft(self, trace: Trace, theirs: Tap, reused: nn.Linear, *, factor: int, relu: bool) -> str:
        """Put projector and classifier into the student, and return the layer that gives the projected map."""
        student = trace.model
        ours, own = classified(student, trace, once=True), classifier(student, trace)
        # The projector is a convolution, and needs a map. Any other student is extended at its classifier's input.
        layer = ours.layer if ours.layout.kind == "map" else EMBEDDING
        projector = Projector(ours.channels, theirs.channels, factor=factor, size=theirs.size, relu=relu)
        adapting(projector, student)
        # On a copy, so that a student that is refused stays as it is.
        trial = copy_of(student)
        graft(trial, layer, own, copy_of(projector), copy_of(reused))
        _check_carries(trial, layer, trace.example, reused.out_features)
        read = graft(student, layer, own, projector, reused)
        if isinstance(student, Normalized) and student.spec is not None:
            student.spec = _spec_of(student.spec, layer, own, projector, ours.channels, reused)
        return read

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the mean squared distance of the maps as `feature`."""
        ours, theirs, mask = self.pairs[0].compared(self.student(batch.inputs), self.teacher(batch))
        if mask is not None:
            # The projector inside the student has already mixed places with padding.
            raise padded("simkd's projector mixes places")
        return {"feature": map_distance(ours, theirs)}


def map_distance(projected: Tensor, teacher: Tensor) -> Tensor:
    r"""Return $\| P(F_s) - F_t \|^2 / (C H W)$, the mean over the batch.

    Args:
        projected: The student's map at the teacher's width, `[batch, channel, height, width]`.
        teacher: The teacher's map, with its own sizes; the larger of the two is pooled.
    """
    ours, theirs = pool_to_smaller(*in_one_type(projected, teacher.detach()))
    return F.mse_loss(ours, theirs)


class Projector(nn.Module):
    """The bottleneck that brings the student's map to the teacher's width: 1x1, 3x3 and 1x1 convolutions.

    Args:
        channels: Channels of the student's map.
        teacher_channels: Channels of the teacher's map.
        factor: Divides the inner channels.
        size: Height and width of the teacher's map; a larger map of the student is pooled to it.
        relu: Whether it ends in a ReLU.
    """

    def __init__(self, channels: int, teacher_channels: int, *, factor: int, size: tuple[int, int], relu: bool) -> None:
        super().__init__()
        self.factor, self.size, self.relu = factor, size, relu
        inner = max(1, teacher_channels // factor)
        layers: list[nn.Module] = [
            *(nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU()),
            *(nn.Conv2d(inner, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner), nn.ReLU()),
            *(nn.Conv2d(inner, teacher_channels, 1, bias=False), nn.BatchNorm2d(teacher_channels)),
        ]
        self.layers = nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)

    def forward(self, feature: Tensor) -> Tensor:
        """Return `[batch, channel, height, width]`, or `[batch, channel]` for a vector."""
        maps = feature if feature.ndim == 4 else feature[:, :, None, None]
        # Only pooled, never enlarged: where the student's map is smaller, the teacher's is pooled for the loss.
        size = (min(maps.shape[2], self.size[0]), min(maps.shape[3], self.size[1]))
        if tuple(maps.shape[2:]) != size:
            maps = F.adaptive_avg_pool2d(maps, size)
        projected: Tensor = self.layers(maps)
        return projected if feature.ndim == 4 else projected.flatten(1)


def graft(network: nn.Module, layer: str, classifier_name: str, projector: Projector, reused: nn.Linear) -> str:
    """Put a projector behind a layer, and replace the classifier; return the layer of the projected map.

    Args:
        network: The student, changed in place.
        layer: The layer that the projector follows, or `embedding` for the classifier's input.
        classifier_name: The student's own classifier.
        projector: The projector.
        reused: The teacher's classifier.
    """
    root = bare(uncompiled(network))
    own = root.get_submodule(classifier_name)
    # A convolution as classifier gets maps of one place, which a linear layer needs flat.
    last = nn.Sequential(nn.Flatten(), reused) if isinstance(own, nn.Conv2d) else reused
    # The names of these parts are in the weights of saved students: they must stay.
    if layer == EMBEDDING:
        _replace(root, classifier_name, nn.Sequential(OrderedDict(projector=projector, classifier=last)))
        return f"{classifier_name}.projector"
    _replace(root, layer, nn.Sequential(OrderedDict(body=root.get_submodule(layer), projector=projector)))
    _replace(root, classifier_name, last)
    return layer


@composed
def deployed(
    student: str | NetworkSpec,
    layer: str,
    classifier: str,
    channels: int,
    embedding: int,
    factor: int,
    size: tuple[int, int],
    relu: bool,
    bias: bool,
    *,
    num_classes: int,
    in_channels: int,
) -> nn.Module:
    """Return the network that SimKD deploys, without weights. A saved one is built again with this.

    Args:
        student: The student's architecture, as `NetworkSpec` reads it.
        layer: The layer that the projector follows, or `embedding` for the classifier's input.
        classifier: Name of the student's own classifier.
        channels: Channels of the map that the projector takes.
        embedding: Channels of the teacher's map.
        factor: Divides the projector's inner channels.
        size: Height and width of the teacher's map; a larger map of the student is pooled to it.
        relu: Whether the projector ends in a ReLU.
        bias: Whether the teacher's classifier has a bias.
        num_classes: Number of classes.
        in_channels: Channels of the images.
    """
    network = load_network(student, num_classes=num_classes, in_channels=in_channels).model
    height, width = size
    projector = Projector(channels, embedding, factor=factor, size=(height, width), relu=relu)
    graft(network, layer, classifier, projector, nn.Linear(embedding, num_classes, bias=bias))
    return network


def _replace(root: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(root.get_submodule(parent), name, module)


def _spec_of(
    student: str, layer: str, classifier_name: str, projector: Projector, channels: int, reused: nn.Linear
) -> str:
    """Return the spec from which the deployed network can be built again."""
    options = {
        "student": architecture_of(student),
        "layer": layer,
        "classifier": classifier_name,
        "channels": channels,
        "embedding": reused.in_features,
        "factor": projector.factor,
        "size": projector.size,
        "relu": projector.relu,
        "bias": reused.bias is not None,
    }
    return str(NetworkSpec(target="simkd", options=options, normalize=NetworkSpec.parse(student).normalize))


def _check_carries(student: nn.Module, layer: str, example: Any, num_classes: int) -> None:
    """Refuse a student whose own layers after the map cannot take another width or size."""
    try:
        with evaluating(student), torch.no_grad():
            shape = tuple(answer(student, example).shape)
        # Layers may carry the map and still end in another shape.
        fits = shape[1:] == (num_classes,)
    except (RuntimeError, ValueError, AttributeError) as error:
        raise _misfit(student, layer, str(error)) from error
    if not fits:
        raise _misfit(student, layer, f"the answer has the shape {list(shape)}")


def _misfit(student: nn.Module, layer: str, why: str) -> UserError:
    return UserError(
        f"{type(bare(student)).__name__} cannot end in the teacher's classifier: its layers behind {layer!r} do not "
        f"take the projected map ({why}). Choose srrl, which leaves the student as it is."
    )
