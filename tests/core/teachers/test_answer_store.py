"""The store of answers: what is kept, shared and counted; and processes that die."""

import os
import pickle
import signal
import sqlite3

import pytest
import torch

from tutelage.core.teachers.answer_store import AnswerStore
from tutelage.errors import UserError


@pytest.fixture
def store(tmp_path):
    return AnswerStore(tmp_path / "deep" / "answers.sqlite")


def test_an_answer_is_found_as_it_was_kept_and_the_first_one_stays(store):
    logits = torch.tensor([1.5, -1e30, 0.25])
    store.keep({b"a": logits, b"b": logits * 2})
    store.keep({b"a": logits * 3})
    found = AnswerStore(store.file).find([b"a", b"x", b"b"])
    assert found.keys() == {b"a", b"b"}
    assert torch.equal(found[b"a"], logits)
    assert torch.equal(found[b"b"], logits * 2)
    assert len(store) == 2


def test_more_keys_than_one_statement_takes(store):
    keys = [number.to_bytes(4) for number in range(1201)]
    store.keep({key: torch.tensor([float(number)]) for number, key in enumerate(keys)})
    found = store.find(keys)
    assert [found[key].item() for key in keys] == list(range(1201))


def test_the_budget_counts_over_all_who_share_the_file(store):
    other = AnswerStore(store.file)
    store.spend(6, 10)
    with pytest.raises(UserError, match="budget of 10 queries does not suffice: 6 are spent, and 5 more"):
        other.spend(5, 10)
    other.spend(4, 10)
    assert store.spent == 10
    store.refund(3)
    assert other.spent == 7


def test_facts_are_kept_and_connections_are_not_carried(store):
    assert store.fact("version") is None
    store.set_fact("version", "1")
    store.set_fact("version", "2")
    assert pickle.loads(pickle.dumps(store)).fact("version") == "2"


def test_a_process_that_dies_while_it_writes_leaves_what_was_whole(store):
    store.keep({b"a": torch.zeros(2)})
    child = os.fork()
    if child == 0:
        # Dies in the middle of a change.
        file = sqlite3.connect(store.file, isolation_level=None)
        file.execute("BEGIN IMMEDIATE")
        file.execute("INSERT INTO answers VALUES (?, ?)", (b"half", b"1234"))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    fresh = AnswerStore(store.file)
    assert fresh.find([b"a", b"half"]).keys() == {b"a"}
    fresh.keep({b"half": torch.ones(2)})
    assert len(fresh) == 2


def test_a_file_that_is_no_store_is_told(store):
    store.file.parent.mkdir()
    store.file.write_text("something else that is longer than a header of a database could be" * 20)
    with pytest.raises(UserError, match="cannot be used: file is not a database"):
        len(store)
