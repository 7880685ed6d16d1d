"""A server on the web that is asked again when it fails: timeouts, retries with growing pauses, a secret header."""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tutelage.errors import UserError

if TYPE_CHECKING:
    import urllib3

# The longest pause between two tries, in seconds.
LONGEST_PAUSE = 30.0
# Answers that may be others a little later. What else fails would fail again.
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
# Of these, the ones by which a server says that it did not do the work.
TURNED_AWAY = frozenset({425, 429, 503})
# The name of a header, where the secret is not for `Authorization`.
_HEADER = re.compile(r"([A-Za-z][A-Za-z0-9-]*):\s+(.+)")
_SHOWN = 300


def _free(served: bool) -> None:
    """Do nothing: requests without a price need no account."""


@dataclass
class Server:
    """A server. Its secret is read when it is needed, and stands in no message, file or `repr`.

    Attributes:
        url: Where it is, without a user's name, a password or a query.
        timeout: Seconds after which a connection, or an answer that does not come, counts as failed.
        tries: How often a request is sent at most.
        pause: Seconds before the second try; each further pause is twice as long, up to half a minute.
        variable: The environment variable that holds the value of the header `Authorization`, such as `Bearer abc`, or
            another header with its name, such as `X-Api-Key: abc`.
    """

    url: str
    timeout: float = 60.0
    tries: int = 8
    pause: float = 0.5
    variable: str | None = None
    _pool: urllib3.PoolManager | None = field(default=None, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        # Open connections belong to one process.
        return {**self.__dict__, "_pool": None}

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        before: Callable[[], None] | None = None,
        after_failure: Callable[[bool], None] = _free,
    ) -> tuple[bytes, Mapping[str, str]]:
        """Return the body and the headers of a successful answer.

        Args:
            path: What is asked for, after the server's URL.
            body: What is sent; without it the request is a GET.
            headers: Further headers.
            before: Called before each try.
            after_failure: Called after a try that failed, with whether the server may have done the work.

        Raises:
            UserError: If it fails for good, or in all tries.
        """
        failure = ""
        for number in range(self.tries):
            if number:
                time.sleep(self._pause_after(number, failure))
            if before is not None:
                before()
            answer, failure, served = self._try(path, body, headers)
            if answer is not None and answer.status == 200:
                return answer.data, answer.headers
            after_failure(served)
            if answer is not None and answer.status not in PASSING:
                raise UserError(self._refused(path, answer))
        raise UserError(
            f"{self.url} failed {self.tries} times in a row, at last with: {self._without_secret(failure)}. See "
            "whether it runs, give it more time (timeout=SECONDS), or run the same command later: it then goes on."
        )

    def _try(
        self, path: str, body: bytes | None, headers: Mapping[str, str] | None
    ) -> tuple[urllib3.BaseHTTPResponse | None, str, bool]:
        """Return the answer if there is one, what failed in words, and whether the server may have done the work."""
        import urllib3

        if self._pool is None:
            # Retries and redirects are ours: each try is counted, and a secret is not carried to another server.
            self._pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(self.timeout))
        method = "GET" if body is None else "POST"
        sent = {**(headers or {}), **self._secret()}
        try:
            answer = self._pool.request(method, self.url + path, body=body, headers=sent, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            # Without a connection nothing was asked. `NewConnectionError` counts as a timeout in some versions.
            unconnected = isinstance(
                error, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError
            )
            return None, f"{type(error).__name__}: {error}", not unconnected
        later = answer.headers.get("Retry-After", "")
        return answer, f"status {answer.status} {later}: {_said(answer.data)}", answer.status not in TURNED_AWAY

    def _pause_after(self, number: int, failure: str) -> float:
        """Return the pause before a further try, in seconds."""
        # The server's own wish comes first.
        wish = re.match(r"status \d+ (\d+):", failure)
        if wish is not None:
            return min(float(wish[1]), LONGEST_PAUSE)
        # Not from the generators of the training, and never the same for two processes that failed together.
        longest: float = min(self.pause * 2.0 ** (number - 1), LONGEST_PAUSE)
        return longest * random.SystemRandom().uniform(0.5, 1)

    def _secret(self) -> dict[str, str]:
        value = self._value()
        if value is None:
            return {}
        header = _HEADER.fullmatch(value)
        return {"Authorization": value} if header is None else {header[1]: header[2]}

    def _value(self) -> str | None:
        if self.variable is None:
            return None
        value = os.environ.get(self.variable, "").strip()
        if not value:
            raise UserError(
                f"The environment variable {self.variable}, which should hold the header for {self.url}, is not set: "
                f"export {self.variable}='Bearer ...'."
            )
        if not value.isprintable():
            raise UserError(f"The environment variable {self.variable} holds line breaks, which no header can have.")
        return value

    def _refused(self, path: str, answer: urllib3.BaseHTTPResponse) -> str:
        said = self._without_secret(_said(answer.data))
        match answer.status:
            case 401 | 403:
                how = "is wrong" if self.variable else "is missing: name the variable that holds it (auth=VARIABLE)"
                return f"{self.url} refused the question ({answer.status}): its authorization {how}. It said: {said}"
            case 404:
                return f"{self.url} knows no {path or 'such model'} (404): check the model's name and version. {said}"
            case status if 300 <= status < 400:
                return f"{self.url} leads elsewhere ({status}), which is not followed: give the final address."
        return f"{self.url} refused the question ({answer.status}): {said}"

    def _without_secret(self, text: str) -> str:
        """Return a text without the secret, which a server may have repeated."""
        with suppress(UserError):
            value = self._value()
            for part in () if value is None else {value, *value.split()[1:]}:
                text = text.replace(part, "***")
        return text


def _said(body: bytes) -> str:
    """Return what a server said in an error, on one line."""
    text = body.decode(errors="replace")
    with suppress(ValueError, AttributeError):
        text = str(json.loads(text).get("error", text))
    return " ".join(text.split())[:_SHOWN]
