"""What names a recording, and what does not."""

import pytest
import torch

from tutelage.core.teachers import UniformTeacher
from tutelage.errors import UserError
from tutelage.recording.naming import RECORDINGS
from tutelage.recording.teacher import RecordedTeacher
from tutelage.testing.toys import toy_recording


def test_a_recording_is_named_by_its_prefix_or_passed():
    recording = toy_recording("full")
    for source in (recording, f"recording:{recording.folder}", f"recording:{recording.folder},views=2"):
        found = RECORDINGS.teacher(source)
        assert isinstance(found, RecordedTeacher)
        assert found.replays().header == recording.header
    for other in ("resnet20", "timm:resnet18", UniformTeacher(3), torch.nn.Identity(), None):
        assert RECORDINGS.teacher(other) is None


def test_a_folder_without_the_prefix_is_told():
    folder = toy_recording("full").folder
    with pytest.raises(UserError, match=f"{folder} holds a recording, not a network: write recording:{folder}"):
        RECORDINGS.teacher(str(folder))
