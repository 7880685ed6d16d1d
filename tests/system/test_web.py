"""Pauses between tries, and secrets. What a failing server does to a teacher: tests/core/teachers/test_remote.py."""

import pickle

import pytest

from tutelage.errors import UserError
from tutelage.system.web import LONGEST_PAUSE, Server


def test_pauses_double_up_to_half_a_minute_and_differ():
    server = Server("http://box", pause=1)
    pauses = [server._pause_after(number, "reset") for number in range(1, 10)]
    for number, pause in enumerate(pauses):
        assert min(2**number, LONGEST_PAUSE) / 2 <= pause <= min(2**number, LONGEST_PAUSE)
    assert server._pause_after(3, "reset") != server._pause_after(3, "reset")
    assert server._pause_after(1, "status 429 7: busy") == 7
    assert server._pause_after(1, "status 503 3600: busy") == LONGEST_PAUSE


def test_nobody_there_is_told_after_all_tries_and_nothing_counts(monkeypatch):
    # Port 9 discards, where anything listens at all; here nothing does.
    server, sent, failed = Server("http://127.0.0.1:9", tries=3, pause=0.001), [], []
    with pytest.raises(UserError, match=r"127.0.0.1:9 failed 3 times in a row, at last with: .*refused"):
        server.ask("/v2", before=lambda: sent.append(1), after_failure=failed.append)
    assert len(sent) == 3
    assert failed == [False] * 3


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        ("Bearer abc", {"Authorization": "Bearer abc"}),
        ("Basic dTpw", {"Authorization": "Basic dTpw"}),
        ("X-Api-Key: abc", {"X-Api-Key": "abc"}),
    ],
)
def test_a_secret_is_a_header_and_is_not_carried_along(value, headers, monkeypatch):
    monkeypatch.setenv("BOX_KEY", value)
    server = Server("http://box", variable="BOX_KEY")
    assert server._secret() == headers
    assert b"abc" not in pickle.dumps(server)
    assert value.split()[1] not in server._without_secret(f"you sent {value} or {value.split()[1]}")


@pytest.mark.parametrize("value", ["", "  ", "Bearer a\nHost: b"])
def test_a_variable_without_a_header_is_told(value, monkeypatch):
    monkeypatch.setenv("BOX_KEY", value)
    with pytest.raises(UserError, match="environment variable BOX_KEY"):
        Server("http://box", variable="BOX_KEY")._secret()
