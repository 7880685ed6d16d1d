"""A teacher behind the Open Inference Protocol: KServe, Triton, MLServer, OpenVINO Model Server, `tutelage serve`."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.core.teachers.answer_store import AnswerStore
from tutelage.core.teachers.naming import TeacherKind
from tutelage.core.teachers.priced import PricedTeacher, device_of, keys_of
from tutelage.core.teachers.remote_name import RemoteName
from tutelage.core.teachers.replies import Answers, logits_of, rows_of
from tutelage.core.teachers.signature import Signature, signature_of
from tutelage.core.teachers.teacher import Teacher, answer_check, ways_out
from tutelage.data.batch import Batch
from tutelage.data.cache import cache_folder
from tutelage.data.dataset import Data
from tutelage.errors import UserError, notice
from tutelage.system.inference_protocol import DATATYPES, HEADER_LENGTH, MalformedError, decode, encode
from tutelage.system.web import Server

_METADATA = "metadata"


class RemoteTeacher(PricedTeacher):
    """A model on a server, asked over HTTP. Every answer is stored, and no sample is asked about twice.

    A sample is known by what is sent: another crop of an image is another question.

    Args:
        name: Where it is and how it is asked: `http://host:port/v2/models/NAME`, with options after commas, such as
            `answers=probabilities`, `normalize=imagenet`, `batch=32` or `auth=VARIABLE`.

    Raises:
        UserError: If the name cannot be read, or the client is not installed.
    """

    def __init__(self, name: str | RemoteName) -> None:
        box = name if isinstance(name, RemoteName) else RemoteName.parse(name)
        _check_installed()
        folder = box.store or cache_folder() / "answers"
        digest = hashlib.sha256(box.url.encode()).hexdigest()[:12]
        super().__init__(AnswerStore(folder / f"{box.model}-{digest}.sqlite"))
        self._box = box
        self._server = Server(box.base, timeout=box.timeout, tries=box.tries, variable=box.auth)
        self._signature: Signature | None = None
        # Classes of the data, where neither the user nor the metadata say how many it has.
        self._outputs: int | None = None

    def known_by(self) -> str:
        """Return its address, and all else that decides about its answers."""
        return f"{self._box.url} {self._salt} as {self._kind}"

    def settle(self, data: Data, *, trust_code: bool = False) -> tuple[Data, tuple[str, ...]]:
        """Return the data unchanged, and notes about what is stored, after reading the model's metadata.

        Raises:
            UserError: If there is no such model, or it does not take the data.
        """
        data, notes = super().settle(data, trust_code=trust_code)
        self._meet(data)
        assert self._store is not None
        stored, most = len(self._store), "" if self._most is None else f" of {self._most}"
        notes = (
            *notes,
            f"The teacher {self._box.url} replies with {self._kind}. {stored} answers are stored in "
            f"{self._store.file}, and {self.spent}{most} queries are spent.",
        )
        if self._box.auth is not None and urlsplit(self._box.base).scheme == "http" and not self._is_near:
            notes += (f"The header of {self._box.auth} goes to {self._box.base} unencrypted: use https where you can.",)
        if data.augmentation:
            notes += (
                f"Training images are augmented ({data.augmentation}). A method that asks about its batches then asks "
                "about new views in every epoch. With --augment none, or a recording (tutelage record), it asks once.",
            )
        return data, notes

    def check_answers(self, data: Data) -> None:
        """Check by the metadata that it has the data's classes, and by its first answer that these are scores.

        Raises:
            UserError: If it has other classes.
        """
        self._meet(data)
        with ways_out():
            data.task.check_answer((1, self._classes), 1, data.num_classes, who="teacher", data=data.name)
        self._awaited = answer_check(data)

    def answer(self, batch: Batch) -> Tensor:
        """Return logits for the batch, `[batch, class]`.

        Raises:
            UserError: If the server fails, its reply is none, or the budget does not suffice.
        """
        sent = self._prepared(batch.inputs)
        keys = keys_of(torch.from_numpy(sent), len(sent), salt=self._salt)
        at_once = self._known.at_once(self._box.batch)
        rows = self.look_up(keys, lambda places: self._rows(sent[places]), at_once=at_once)
        return logits_of(self._kind, rows.numpy(), self._classes).to(device_of(batch.inputs))

    def _rows(self, sent: NDArray[Any]) -> Tensor:
        """Return the replies to prepared samples, `[sample, number]`."""
        outputs = [{"name": name} for name in self._known.outputs]
        binary = self._known.binary if self._box.binary is None else self._box.binary
        if binary:
            outputs = [{**each, "parameters": {"binary_data": True}} for each in outputs]  # type: ignore[dict-item]
        body, headers = encode("inputs", {self._known.input: sent}, binary=binary, outputs=outputs)
        reply, about = self._server.ask(
            f"{self._box.path}/infer",
            body,
            headers,
            before=lambda: self.count(len(sent)),
            after_failure=lambda served: None if served else self.uncount(len(sent)),
        )
        try:
            _, tensors = decode("outputs", reply, about.get(HEADER_LENGTH))
            found = [tensors[name] for name in self._known.outputs]
        except (MalformedError, KeyError) as error:
            raise UserError(
                f"{self._box.url} replied with something that is no answer of the Open Inference Protocol: {error}. "
                "It is not stored. If only its bytes are wrong, add binary=false."
            ) from error
        return torch.from_numpy(rows_of(self._kind, found, self._classes, len(sent)))

    def _prepared(self, inputs: Any) -> NDArray[Any]:
        """Return inputs as they are sent."""
        if not isinstance(inputs, Tensor) or inputs.ndim != 4:
            raise UserError("A black box on a server is asked about images of one size, and these inputs are others.")
        images = inputs.detach().float().cpu()
        kind = np.dtype(DATATYPES[self._known.datatype])
        if kind == np.uint8:
            if images.numel() and not (images.min() >= -1e-3 and images.max() <= 1.001):
                raise UserError(
                    f"{self._box.url} takes bytes, and the images go from {images.min():.3g} to {images.max():.3g}: "
                    "leave out your own normalisation, so that they lie in [0, 1]."
                )
            images = (images * 255).round().clamp(0, 255)
        elif (statistics := self._box.normalize) is not None:
            mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in (statistics.mean, statistics.std))
            images = (images - mean) / std
        if self._known.channels_last:
            images = images.permute(0, 2, 3, 1)
        return np.ascontiguousarray(images.numpy().astype(kind))

    @property
    def _is_near(self) -> bool:
        """Whether the server is this very machine."""
        return urlsplit(self._box.base).hostname in ("localhost", "127.0.0.1", "::1")

    @property
    def _known(self) -> Signature:
        if self._signature is None:
            self._meet(None)
        assert self._signature is not None
        return self._signature

    @property
    def _kind(self) -> Answers:
        return self._known.answers

    @property
    def _classes(self) -> int:
        known = self._known.classes or self._outputs
        if known is None:
            raise UserError(f"How many classes does {self._box.url} have? Its metadata do not say: add classes=NUMBER.")
        return known

    @property
    def _salt(self) -> str:
        """All that decides about an answer beside the image itself; not how the reply is read."""
        found, box = self._known, self._box
        versions = box.version or "/".join(found.versions)
        return f"{box.model} {versions} {found.input} {found.datatype} {box.normalize} {'+'.join(found.outputs)}"

    def _meet(self, data: Data | None) -> None:
        """Read the model's metadata, which costs nothing, and check that it takes the data."""
        if self._signature is None:
            self._signature = signature_of(self._metadata(), self._box)
        if data is not None:
            self._signature = self._signature.fitted(data, self._box)
            self._outputs = self._outputs or data.num_classes

    def _metadata(self) -> dict[str, Any]:
        """Return the server's and the model's metadata, or the stored ones if the server is away."""
        assert self._store is not None
        try:
            model = json.loads(self._server.ask(self._box.path)[0])
            server = json.loads(self._server.ask("/v2")[0])
            found = {"model": model, "extensions": list(server.get("extensions", ()))}
        except (ValueError, AttributeError) as error:
            stored = self._store.fact(_METADATA)
            if stored is None:
                if isinstance(error, UserError):
                    raise
                raise UserError(f"{self._box.url} has no metadata in JSON: {error}.") from error
            notice(f"Only stored answers can be used for now, as the server does not answer: {error}")
            return dict(json.loads(stored))
        self._store.set_fact(_METADATA, json.dumps(found))
        return found


class Remotes(TeacherKind):
    """Models on servers as teachers.

    Args:
        prefix: The beginning of their names.
    """

    prefix = "http"

    def teacher(self, source: object) -> Teacher | None:
        """Return the teacher at an address.

        Raises:
            UserError: If the address cannot be read.
        """
        if isinstance(source, str) and source.startswith(("http://", "https://")):
            return RemoteTeacher(source)
        return None


REMOTES = Remotes()


def _check_installed() -> None:
    try:
        import urllib3  # noqa: F401
    except ImportError as error:
        raise UserError("To ask a server, install urllib3: pip install 'tutelage[http]'.") from error
