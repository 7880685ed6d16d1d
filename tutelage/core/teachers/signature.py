"""What a model on a server takes and returns, by its metadata, held against the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tutelage.core.teachers.remote_name import RemoteName
from tutelage.core.teachers.replies import KINDS, Answers
from tutelage.data.dataset import Data
from tutelage.errors import UserError, unknown
from tutelage.system.inference_protocol import BINARY_EXTENSION

_TAKEN = ("FP32", "FP16", "FP64", "UINT8")
_ANY = -1


@dataclass(frozen=True, kw_only=True)
class Signature:
    """The input and the outputs of a model.

    Attributes:
        input: The name of the input.
        datatype: The protocol's name of its numbers.
        shape: Its shape; -1 is any size.
        outputs: The names of the outputs to read.
        answers: What they are.
        classes: How many classes the outputs have; None if the metadata do not say.
        versions: The model's versions on the server.
        binary: Whether the server reads and writes bytes.
        channels_last: Whether the channels of an image come last.
    """

    input: str
    datatype: str
    shape: tuple[int, ...]
    outputs: tuple[str, ...]
    answers: Answers
    classes: int | None
    versions: tuple[str, ...] = ()
    binary: bool = False
    channels_last: bool = False

    def at_once(self, wanted: int) -> int:
        """Return how many samples to send at once."""
        return wanted if self.shape[0] == _ANY else min(wanted, self.shape[0])

    def fitted(self, data: Data, box: RemoteName) -> Signature:
        """Return the signature with the channels where the data's are.

        Raises:
            UserError: If the model does not take the data.
        """
        if not data.image_size:
            raise UserError(f"{box.url} is asked about images, and {data.name} has none: give the images themselves.")
        given = {"nchw": (data.in_channels, *data.image_size), "nhwc": (*data.image_size, data.in_channels)}
        layouts = [box.layout] if box.layout is not None else ["nchw", "nhwc"]
        for layout in layouts:
            if all(size in (_ANY, wanted) for size, wanted in zip(self.shape[1:], given[layout])):
                return replace(self, channels_last=layout == "nhwc")
        raise UserError(
            f"{box.url} takes images of the shape {list(self.shape[1:])}, and those of {data.name} are "
            f"{list(given['nchw'])}, channels first. Resize them (--image-size), or name another model."
        )


def signature_of(metadata: Mapping[str, Any], box: RemoteName) -> Signature:
    """Return what a model's metadata say.

    Args:
        metadata: The model's metadata as `model`, and the server's `extensions`.
        box: How the user wants to ask it.

    Raises:
        UserError: If they say nothing usable, or lack what the user named.
    """
    model = metadata["model"]
    try:
        inputs = {str(each["name"]): each for each in model["inputs"]}
        outputs = {str(each["name"]): each for each in model["outputs"]}
        name, shape, datatype = _input(inputs, box)
        read, answers, classes = _outputs(outputs, box)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"The metadata of {box.url} lack inputs and outputs with name, datatype and shape.") from error
    return Signature(
        input=name,
        datatype=datatype,
        shape=shape,
        outputs=read,
        answers=answers,
        classes=classes,
        versions=tuple(map(str, model.get("versions") or ())),
        binary=BINARY_EXTENSION in metadata.get("extensions", ()),
    )


def _input(inputs: Mapping[str, Any], box: RemoteName) -> tuple[str, tuple[int, ...], str]:
    if box.input is None and len(inputs) != 1:
        raise UserError(f"{box.url} has the inputs {', '.join(inputs)}: name one of them, input=NAME.")
    name = box.input or next(iter(inputs))
    if name not in inputs:
        raise unknown(f"input of {box.url}", name, inputs)
    shape, datatype = tuple(int(size) for size in inputs[name]["shape"]), str(inputs[name]["datatype"])
    if len(shape) != 4:
        raise UserError(
            f"The input {name} of {box.url} has the shape {list(shape)}, and a batch of images has four axes: "
            "[-1, channel, height, width] or [-1, height, width, channel]."
        )
    if shape[0] > 1:
        raise UserError(f"{box.url} takes exactly {shape[0]} images at once: serve it with any number of them, or one.")
    if datatype not in _TAKEN:
        raise UserError(f"{box.url} takes images as {datatype}, and only {', '.join(_TAKEN)} can be sent.")
    if datatype == "UINT8" and box.normalize is not None:
        raise UserError(f"{box.url} takes images as bytes, which cannot be normalised: leave out normalize=.")
    return name, shape, datatype


def _outputs(outputs: Mapping[str, Any], box: RemoteName) -> tuple[tuple[str, ...], Answers, int | None]:
    read = box.output or _usual(outputs, box)
    for name in read:
        if name not in outputs:
            raise unknown(f"output of {box.url}", name, outputs)
    answers = box.answers or _meant(read)
    if (len(read) == 2) != (answers == "top") or len(read) > 2:
        raise UserError(
            f"{box.url}: {answers} cannot be read from {' and '.join(read)}. The top classes have two outputs, "
            "output=CLASSES+PROBABILITIES,answers=top, and all else has one."
        )
    last = outputs[read[0]]["shape"]
    known = answers in ("logits", "probabilities") and len(last) == 2 and int(last[1]) > 0
    return read, answers, box.classes or (int(last[1]) if known else None)


def _usual(outputs: Mapping[str, Any], box: RemoteName) -> tuple[str, ...]:
    if len(outputs) == 1:
        return tuple(outputs)
    if set(outputs) == {"classes", "probabilities"}:
        return ("classes", "probabilities")
    # Of outputs with these names, logits say most.
    named = next((kind for kind in KINDS if kind in outputs), None)
    if named is None:
        raise UserError(
            f"{box.url} has the outputs {', '.join(outputs)}: name one, output=NAME, and what it is, answers=."
        )
    return (named,)


def _meant(read: Sequence[str]) -> Answers:
    """Return what outputs are by their names. Logits are checked before anything learns from them."""
    if len(read) == 2:
        return "top"
    return next((kind for kind in KINDS if kind == read[0]), "logits")
