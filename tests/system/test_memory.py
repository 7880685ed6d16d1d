import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tutelage.system.memory import can_keep_memory, kept_memory

needs_glibc = pytest.mark.skipif(not can_keep_memory(), reason="the C library is not glibc")


def faults(steps=20, megabytes=40):
    """Return how many pages the system hands out while a large piece is taken and freed again and again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        torch.ones(megabytes * 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


ALONE = """
from test_memory import faults, kept_memory
given_back = faults()
with kept_memory():
    # In a young heap small pieces land where the large one was, until it has grown enough for both.
    faults(steps=20)
    print(given_back, faults())
"""


@needs_glibc
def test_memory_that_a_step_frees_is_kept_for_the_next():
    # In a process of its own: what others left in the heap decides how much of it can be kept.
    folder = Path(__file__).parent
    found = subprocess.run([sys.executable, "-c", ALONE], cwd=folder, capture_output=True, text=True, check=True)
    given_back, kept = map(int, found.stdout.split())
    assert kept < given_back / 10


@needs_glibc
def test_memory_is_given_back_at_the_end():
    with kept_memory():
        faults(steps=2)
    assert faults() > 10 * 40


@needs_glibc
def test_it_ends_with_an_error_too():
    with pytest.raises(KeyError), kept_memory():
        faults(steps=2)
        raise KeyError
    assert faults() > 10 * 40


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr("platform.libc_ver", lambda: ("musl", "1.2"))
    monkeypatch.setattr("ctypes.CDLL", lambda _: pytest.fail("nothing is to be loaded"))
    assert not can_keep_memory()
    with kept_memory():
        pass


def test_it_can_be_left_out(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda _: pytest.fail("nothing is to be loaded"))
    with kept_memory(wanted=False):
        pass
