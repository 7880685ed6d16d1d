"""Loads any network by its spec: builds it, loads its weights, and adds its input statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from tutelage.errors import UserError
from tutelage.models import hub
from tutelage.models.catalogue import factory
from tutelage.models.class_order import lists, put_in_order, usual_shapes
from tutelage.models.composed import composed_factory
from tutelage.models.heads import check_classes
from tutelage.models.language import build_language, language_classes
from tutelage.models.normalization import Normalization, Normalized
from tutelage.models.saving import NetworkMetadata, architecture, metadata_beside, weights_file
from tutelage.models.segmenters import build_smp, multiple_of
from tutelage.models.spec import NetworkSpec
from tutelage.models.trust import allow
from tutelage.models.user_code import build_with, call_factory
from tutelage.models.weights import load_weights


def load_network(
    spec: str | NetworkSpec,
    *,
    num_classes: int,
    in_channels: int = 3,
    normalization: Normalization | None = None,
    class_names: Sequence[str] | None = None,
    trust_code: bool = False,
    any_classes: bool = False,
) -> Normalized:
    """Build a network, load its weights if it has any, and give it its input statistics.

    The statistics are the first that exist of: those of the spec's `normalize=`; those that a saved network was trained
    with; those of timm's or torchvision's pretrained weights; the dataset's; none.

    Args:
        spec: The network, such as `resnet20`, `timm:resnet18` or `runs/teacher`; see `NetworkSpec`.
        num_classes: Classes of the data.
        in_channels: Channels of the data.
        normalization: The dataset's statistics.
        class_names: Names of the data's classes. A saved network that knows the names of its own then answers in this
            order; None matches classes by position.
        trust_code: Whether a saved network may run the code that its `network.json` names, even if you have never named
            that code yourself.
        any_classes: Whether a trained network may have other classes than the data, or none. A teacher whose layers
            alone are read does not need the data's.

    Raises:
        UserError: The spec names nothing, its weights do not fit, classes or channels differ from the data's, or a
            saved network is built by code that is not trusted.
    """
    spec = NetworkSpec.parse(spec) if isinstance(spec, str) else spec
    if trust_code and spec.origin is not None:
        spec = replace(spec, origin=replace(spec.origin, trusted=True))
    weights = spec.weights or (spec.target if spec.kind == "run" else None)
    metadata = None if weights is None else metadata_beside(weights)
    # An untrained network has no classes of its own, and is built for the data's.
    any_classes = any_classes and spec.is_trained
    if metadata is not None:
        num_classes = metadata.num_classes if any_classes else num_classes
        _check_metadata(metadata, str(weights), class_names, num_classes=num_classes, in_channels=in_channels)
    if spec.kind == "run" and spec.options:
        raise UserError(f"{spec}: a saved network has its options already; only `normalize=` can be given.")
    network, own = _build(
        architecture(spec, trust_code=trust_code) if spec.kind == "run" else spec,
        num_classes=num_classes,
        in_channels=in_channels,
    )
    # A factory may give its network statistics itself: they count as its own, and are not applied twice.
    if isinstance(network, Normalized):
        own, network = network.normalization, network.model
    refusal = None
    if weights is not None:
        load_weights(network, weights_file(weights))
        if metadata is not None:
            shapes = usual_shapes(in_channels, metadata.input_size)
            # Another number of classes was refused above, or is allowed; only an equal number can be put in order.
            if metadata.num_classes == len(class_names or ()):
                try:
                    put_in_order(network, metadata.class_names, class_names, source=str(spec), shapes=shapes)
                except UserError as error:
                    if not any_classes:
                        raise
                    refusal = str(error)
        # Weights belong to the statistics that they were trained with.
        own = own if metadata is None else metadata.normalization
    elif spec.kind == "transformers" and not any_classes and spec.trained_for(num_classes):
        put_in_order(network, language_classes(spec.name), class_names, source=str(spec), shapes=())
    if not any_classes:
        check_classes(network, num_classes, in_channels=in_channels, source=str(spec))
    chosen = _choose(spec, own=own, data=normalization, in_channels=in_channels)
    return Normalized(network, chosen.mean, chosen.std, spec=str(spec), refusal=refusal, multiple=multiple_of(network))


def _build(spec: NetworkSpec, *, num_classes: int, in_channels: int) -> tuple[nn.Module, Normalization | None]:
    sizes = {"num_classes": num_classes, "in_channels": in_channels}
    if spec.kind == "timm":
        return hub.build_timm(spec.name, pretrained=spec.uses_pretrained, options=spec.options, **sizes)
    if spec.kind == "torchvision":
        return hub.build_torchvision(spec.name, pretrained=spec.uses_pretrained, options=spec.options, **sizes)
    if spec.kind == "smp":
        network = build_smp(spec.name, pretrained=spec.uses_pretrained, options=spec.options, **sizes)
        return network, Normalization.named("imagenet") if spec.uses_pretrained else None
    if spec.kind == "transformers":
        network = build_language(
            spec.name, num_classes=num_classes, pretrained=spec.uses_pretrained, options=spec.options
        )
        return network, None
    if spec.kind == "catalogue":
        return call_factory(factory(spec.name), spec.options, source=spec.target, **sizes), None
    if spec.kind == "composed":
        # The inner network keeps the file that named it: its factory may be a user's, whose code needs trust.
        options = spec.options if (within := spec.within) is None else {**spec.options, "student": within}
        return call_factory(composed_factory(spec.name), options, source=spec.target, **sizes), None
    code = spec.code
    assert code is not None
    allow(code, spec.origin)
    return build_with(spec.target, spec.options, **sizes), None


def _check_metadata(
    metadata: NetworkMetadata, path: str, class_names: Sequence[str] | None, *, num_classes: int, in_channels: int
) -> None:
    if metadata.num_classes != num_classes:
        raise UserError(
            f"The network saved in {path!r} has {metadata.num_classes} classes, the data {num_classes}. "
            f"{lists(metadata.class_names, class_names)}".rstrip()
        )
    if metadata.in_channels != in_channels:
        raise UserError(
            f"The network saved in {path!r} takes {metadata.in_channels} channels, the data have {in_channels}."
        )


def _choose(
    spec: NetworkSpec, *, own: Normalization | None, data: Normalization | None, in_channels: int
) -> Normalization:
    if spec.normalize == "data":
        chosen = data
    elif spec.normalize is not None:
        chosen = Normalization.parse(spec.normalize)
    elif own is not None and len(own.mean) in (1, in_channels):
        chosen = own
    else:
        # Pretrained colour weights adapted to grey images also end here: three means say nothing about one channel.
        chosen = data
    chosen = chosen or Normalization.named("none")
    if len(chosen.mean) not in (1, in_channels):
        raise UserError(
            f"The normalisation of {spec} has {len(chosen.mean)} channels, the data have {in_channels}: "
            "choose another with `normalize=`."
        )
    return chosen
