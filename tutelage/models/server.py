"""A network behind the Open Inference Protocol (KServe v2): health, metadata, and answers to batches of images."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tutelage.errors import UserError, unknown
from tutelage.models.answers import answer
from tutelage.models.modes import evaluating
from tutelage.system.inference_protocol import BINARY_EXTENSION, HEADER_LENGTH, MalformedError, decode, encode
from tutelage.version import VERSION

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

Outputs = dict[str, NDArray[Any]]
INPUT, MODEL_VERSION = "images", "1"
_KINDS = ("logits", "probabilities", "labels", "top5")


class RefusedError(ValueError):
    """A question that cannot be answered."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A network, and how it is served.

    Attributes:
        network: The network.
        name: The model's name in addresses.
        classes: How many classes it has.
        channels: Channels of its images.
        size: Height and width of its images; () for any.
        answers: What it tells: `logits`, `probabilities`, `labels`, or the classes and probabilities of `top5`, with
            any number for the 5.
        batch_size: The most images that it answers at once; longer questions are answered in parts.
        device: Where it computes.
    """

    network: nn.Module
    name: str
    classes: int
    channels: int
    size: tuple[int, ...] = ()
    answers: str = "logits"
    batch_size: int = 128
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise UserError(
                f"The model's name {self.name!r} becomes a part of its address: letters, digits, . _ and -."
            )
        if self.answers not in ("logits", "probabilities", "labels") and not 0 < self.top <= self.classes:
            raise unknown("kind of answers", self.answers, _KINDS)
        if self.batch_size < 1:
            raise UserError(f"batch_size={self.batch_size} must be 1 or more.")

    @property
    def top(self) -> int:
        """How many of the top classes it tells; 0 if it tells something else."""
        found = re.fullmatch(r"top([1-9]\d*)", self.answers)
        return int(found[1]) if found else 0

    def metadata(self) -> dict[str, Any]:
        """Return the model's metadata, as the protocol has them."""
        height, width = self.size or (-1, -1)
        shape = [-1, self.channels, height, width]
        outputs = {
            "logits": ("FP32", [-1, self.classes]),
            "probabilities": ("FP32", [-1, self.top or self.classes]),
            "classes": ("INT64", [-1, self.top]),
            "labels": ("INT64", [-1]),
        }
        told = ("classes", "probabilities") if self.top else (self.answers,)
        return {
            "name": self.name,
            "versions": [MODEL_VERSION],
            "platform": "pytorch",
            "inputs": [{"name": INPUT, "datatype": "FP32", "shape": shape}],
            "outputs": [{"name": each, "datatype": outputs[each][0], "shape": outputs[each][1]} for each in told],
        }

    def infer(self, tensors: Mapping[str, NDArray[Any]]) -> Outputs:
        """Return the answers to images.

        Args:
            tensors: The inputs by name: `images`, `[batch, channel, height, width]`, floats in [0, 1] or bytes.

        Raises:
            RefusedError: If they are not such images.
        """
        images = tensors.get(INPUT)
        if images is None or len(tensors) != 1:
            raise RefusedError(f"the only input is {INPUT!r}, and the question has {', '.join(tensors) or 'none'}")
        wanted = (self.channels, *(self.size or images.shape[2:]))
        if images.ndim != 4 or images.shape[1:] != wanted or not len(images):
            height, width = self.size or ("height", "width")
            raise RefusedError(
                f"{INPUT} have the shape {list(images.shape)}: give [batch, {self.channels}, {height}, {width}]"
            )
        given = torch.from_numpy(images)
        inputs = given.float() / 255 if images.dtype == np.uint8 else given.float()
        with evaluating(self.network), torch.inference_mode():
            parts = [answer(self.network, part.to(self.device)) for part in torch.split(inputs, self.batch_size)]
        return self._told(torch.cat(parts).float().cpu())

    def _told(self, logits: Tensor) -> Outputs:
        if self.top:
            share, classes = logits.softmax(1).topk(self.top, dim=1)
            return {"classes": classes.numpy(), "probabilities": share.numpy()}
        match self.answers:
            case "labels":
                return {"labels": logits.argmax(1).numpy()}
            case "probabilities":
                return {"probabilities": logits.softmax(1).numpy()}
        return {"logits": logits.numpy()}


def application(served: Served) -> Starlette:
    """Return the web application that serves a network.

    Args:
        served: The network, and how it is served.

    Raises:
        UserError: If the server is not installed.
    """
    try:
        import anyio
        from starlette.applications import Starlette
        from starlette.responses import JSONResponse, Response
        from starlette.routing import Route
    except ImportError as error:
        raise not_installed() from error
    # One question at a time: several at once would share the same processor or GPU, and take more memory.
    turn = anyio.CapacityLimiter(1)

    def saying(**content: Any) -> Callable[[Request], Response]:
        return lambda request: JSONResponse(content)

    async def infer(request: Request) -> Response:
        body, length = await request.body(), request.headers.get(HEADER_LENGTH)
        try:
            reply, headers = await anyio.to_thread.run_sync(_reply, served, body, length, limiter=turn)
        except (MalformedError, RefusedError) as error:
            return JSONResponse({"error": str(error)}, 400)
        return Response(reply, headers=headers)

    routes = [
        Route("/v2", saying(name="tutelage", version=VERSION, extensions=[BINARY_EXTENSION])),
        Route("/v2/health/live", saying(live=True)),
        Route("/v2/health/ready", saying(ready=True)),
    ]
    home = f"/v2/models/{served.name}"
    for path in (home, f"{home}/versions/{MODEL_VERSION}"):
        routes += [Route(path, saying(**served.metadata())), Route(f"{path}/ready", saying(ready=True))]
        routes += [Route(f"{path}/infer", infer, methods=["POST"])]
    return Starlette(routes=routes)


def _reply(served: Served, body: bytes, length: str | None) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of the answer to a question."""
    content, tensors = decode("inputs", body, length)
    outputs = served.infer(tensors)
    names, binary = _asked_for(content, outputs)
    about = {"model_name": served.name, "model_version": MODEL_VERSION}
    # A question's own mark comes back with its answer.
    about |= {"id": content["id"]} if "id" in content else {}
    return encode("outputs", {name: outputs[name] for name in names}, binary=binary, **about)


def not_installed() -> UserError:
    """Return the error for a server that is not installed."""
    return UserError("To serve a network, install the server: pip install 'tutelage[serve]'.")


def _asked_for(content: Mapping[str, Any], outputs: Outputs) -> tuple[Sequence[str], bool]:
    """Return the outputs that a question asks for, and whether it wants them as bytes."""
    try:
        wanted = {str(each["name"]): each.get("parameters") or {} for each in content.get("outputs") or ()}
        whole = content.get("parameters") or {}
        binary = bool(whole.get("binary_data_output")) or any(each.get("binary_data") for each in wanted.values())
    except (KeyError, TypeError, AttributeError) as error:
        raise RefusedError(f"the outputs of the question are no list of names: {error}") from error
    for name in wanted:
        if name not in outputs:
            raise RefusedError(f"there is no output {name!r}, only {', '.join(outputs)}")
    return list(wanted or outputs), binary
