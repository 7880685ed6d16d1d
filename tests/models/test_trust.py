"""What this user has named is remembered, on this machine and for this user alone."""

import os

import pytest

from tutelage.errors import UserError
from tutelage.models import trust
from tutelage.models.trust import Origin, allow, remember

STRANGE = Origin("run/network.json", trusted=False)


@pytest.fixture(autouse=True)
def ledger(tmp_path, monkeypatch):
    """A ledger of its own, and a process that has named nothing yet."""
    monkeypatch.setattr(trust, "_NAMED_HERE", set())
    monkeypatch.setattr(trust, "_ledger", lambda: tmp_path / "cache" / "ledger")
    return tmp_path / "cache" / "ledger"


def refused(code="nets.py:Net"):
    with pytest.raises(UserError, match="names code that you have not named yourself"):
        allow(code, STRANGE)


def test_only_what_was_named_or_is_trusted_is_allowed():
    refused()
    allow("nets.py:Net", Origin("run/network.json", trusted=True))
    refused()
    allow("nets.py:Net", None)
    allow("nets.py:Net", STRANGE)
    refused("nets.py:Net,width=2")


def test_the_next_process_remembers(monkeypatch, ledger):
    remember("nets.py:Net")
    remember("nets.py:Net")
    monkeypatch.setattr(trust, "_NAMED_HERE", set())
    allow("nets.py:Net", STRANGE)
    assert len(ledger.read_text().split()) == 1
    assert "nets" not in ledger.read_text()


@pytest.mark.skipif(os.name == "nt", reason="permissions of another kind")
def test_what_others_can_write_is_not_believed(monkeypatch, ledger):
    remember("nets.py:Net")
    monkeypatch.setattr(trust, "_NAMED_HERE", set())
    ledger.chmod(0o622)
    refused()
    ledger.chmod(0o600)
    allow("nets.py:Net", STRANGE)
    monkeypatch.setattr(os, "getuid", lambda: -7)
    refused()


def test_without_a_place_to_write_this_process_remembers_still(monkeypatch, ledger):
    ledger.parent.write_text("a file where the folder should be")
    remember("nets.py:Net")
    allow("nets.py:Net", STRANGE)
    monkeypatch.setattr(trust, "_NAMED_HERE", set())
    refused()


def test_a_damaged_ledger_knows_nothing(monkeypatch, ledger):
    ledger.parent.mkdir()
    ledger.write_bytes(b"\xff\xfe\x00")
    ledger.chmod(0o600)
    refused()
