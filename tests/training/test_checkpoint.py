"""Checkpoints: whole, without the teacher, strict, and free of code."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from tutelage.core.teachers import EnsembleTeacher, FrozenTeacher, NoisyTeacher
from tutelage.errors import UserError
from tutelage.methods.kd import KD
from tutelage.system import chance
from tutelage.training import checkpoint


def method(seed=0, width=3):
    torch.manual_seed(seed)
    inner = NoisyTeacher(FrozenTeacher(nn.Linear(4, width)), std=0.1)
    return KD(nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width)), EnsembleTeacher([inner]))


def test_student_state_leaves_out_teachers_however_deep():
    state = checkpoint.student_state(method())
    assert state
    assert all(key.startswith("student.") for key in state)


def test_buffers_of_students_are_those_of_no_teacher():
    one = method()
    one.teacher.register_buffer("seen", torch.zeros(1))
    assert [id(found) for found in checkpoint.student_buffers(one)] == [id(own) for own in one.student.buffers()]


def test_student_state_comes_back_strictly(tmp_path):
    one, other = method(1), method(2)
    checkpoint.save(tmp_path / "c.pt", {"method": checkpoint.student_state(one)})
    teacher = other.teacher.teachers[0].teacher.network.weight.clone()
    checkpoint.load_student_state(other, checkpoint.load(tmp_path / "c.pt")["method"])
    assert all(torch.equal(a, b) for a, b in zip(one.student.parameters(), other.student.parameters(), strict=True))
    assert torch.equal(teacher, other.teacher.teachers[0].teacher.network.weight)


def test_a_state_with_other_names_is_refused():
    state = checkpoint.student_state(method())
    state.pop(next(iter(state)))
    with pytest.raises(UserError, match="another method or network"):
        checkpoint.load_student_state(method(), state)


def test_a_snapshot_does_not_follow_the_training():
    one = method()
    before = checkpoint.snapshot(one)
    with torch.no_grad():
        one.student.model[0].weight.add_(1)
    assert not torch.equal(before["student.model.0.weight"], one.student.model[0].weight)


def test_every_random_generator_comes_back(tmp_path):
    chance.seed_everything(5)
    random.gauss(0, 1), np.random.standard_normal(), torch.rand(1)
    checkpoint.save(tmp_path / "c.pt", {"random": chance.random_state()})
    first = random.gauss(0, 1), np.random.standard_normal(), torch.rand(1).item()
    chance.seed_everything(6)
    chance.restore_random_state(checkpoint.load(tmp_path / "c.pt")["random"])
    assert (random.gauss(0, 1), np.random.standard_normal(), torch.rand(1).item()) == first


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04]"])
def test_a_damaged_file_is_told(content, tmp_path):
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"c\.pt is damaged.*Delete it"):
        checkpoint.load(tmp_path / "c.pt")


def test_a_flipped_byte_is_noticed(tmp_path):
    values = torch.arange(1000.0)
    checkpoint.save(tmp_path / "c.pt", {"values": values})
    content = bytearray((tmp_path / "c.pt").read_bytes())
    content[content.find(values[100:110].numpy().tobytes())] ^= 1
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        checkpoint.load(tmp_path / "c.pt")
