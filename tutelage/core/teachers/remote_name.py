"""How users name a black box on the web: `http://host:port/v2/models/NAME,answers=labels`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import urlsplit

from tutelage.core.teachers.replies import KINDS, Answers
from tutelage.errors import UserError, unknown
from tutelage.models.normalization import Normalization
from tutelage.system.grammar import read

Layout = Literal["nchw", "nhwc"]
_PATH = re.compile(r"(?P<base>.*)/v2/models/(?P<model>[^/]+)(/versions/(?P<version>[^/]+))?/?")


@dataclass(frozen=True, kw_only=True)
class RemoteName:
    """Which black box, and how it is asked.

    Attributes:
        base: The server's address, before `/v2`.
        model: The name of the model.
        version: Its version; None for the server's choice.
        answers: What it replies with; None for what the names of its outputs say.
        input: The name of the input; None for the only one.
        output: The names of the outputs to read; empty for the only one.
        normalize: Statistics by which inputs are normalised before they are sent; None sends them in [0, 1].
        layout: Whether the channels come first; None for what the server's metadata say.
        classes: How many classes it has; None for what its metadata or the data say.
        batch: The most samples of one question.
        timeout: Seconds after which a question counts as failed.
        tries: How often a question is asked at most.
        binary: Whether tensors are sent as bytes; None for what the server says it can.
        auth: The environment variable that holds the authorization header; None without one.
        store: The folder in which answers are kept; None for the cache.
    """

    base: str
    model: str
    version: str | None = None
    answers: Answers | None = None
    input: str | None = None
    output: tuple[str, ...] = ()
    normalize: Normalization | None = None
    layout: Layout | None = None
    classes: int | None = None
    batch: int = 64
    timeout: float = 60.0
    tries: int = 8
    binary: bool | None = None
    auth: str | None = None
    store: Path | None = None

    @classmethod
    def parse(cls, text: str) -> RemoteName:
        """Read an address with options after commas.

        Raises:
            UserError: If it is no address of a model, or an option is unknown or has a wrong value.
        """
        written = read(text, kind="black box", is_place=True)
        options: dict[str, Any] = {}
        for key, given in written.options.items():
            if key not in _READERS:
                raise unknown("option of a black box", key, _READERS)
            try:
                options[key] = _READERS[key](given)
            except UserError:
                raise
            except ValueError as error:
                raise UserError(f"{key}={given} of the black box {written.name}: {error}.") from error
        return cls(**_address(written.name), **options)

    @property
    def path(self) -> str:
        """The model's path on its server."""
        return f"/v2/models/{self.model}" + (f"/versions/{self.version}" if self.version else "")

    @property
    def url(self) -> str:
        """The model's address."""
        return self.base + self.path


def _address(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    # Names of teachers are written into reports and files, so nothing secret may stand in one.
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError(
            f"The address of the black box on {parts.hostname} holds a user, a password or a query, which would be "
            "written into reports: put the header into an environment variable, and name that as auth=VARIABLE."
        )
    found = _PATH.fullmatch(parts.path)
    if not parts.hostname or found is None:
        raise UserError(
            f"{url} is no address of a model: write http://HOST:PORT/v2/models/NAME, as the Open Inference Protocol "
            "has it. `tutelage serve` prints the address of the network that it serves."
        )
    base = f"{parts.scheme}://{parts.netloc}{found['base']}"
    return {"base": base, "model": found["model"], "version": found["version"]}


def _one_of(*known: str) -> Callable[[str], str]:
    def choose(text: str) -> str:
        if text not in known:
            raise ValueError(f"choose one of {', '.join(known)}")
        return text

    return choose


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("give a whole number, 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    if not (found := float(text)) > 0:
        raise ValueError("give seconds, above 0")
    return found


def _switch(text: str) -> bool:
    return _one_of("true", "false")(text.lower()) == "true"


def _variable(text: str) -> str:
    # A secret that was pasted here by mistake must not be repeated.
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise UserError("auth= of a black box names an environment variable, such as auth=API_HEADER, not the header.")
    return text


_READERS: Mapping[str, Callable[[str], Any]] = MappingProxyType(
    {
        "answers": _one_of(*KINDS),
        "input": str,
        "output": lambda text: tuple(text.split("+")),
        "normalize": Normalization.parse,
        "layout": _one_of("nchw", "nhwc"),
        "classes": _count,
        "batch": _count,
        "timeout": _seconds,
        "tries": _count,
        "binary": _switch,
        "auth": _variable,
        "store": lambda text: Path(text).expanduser(),
    }
)
