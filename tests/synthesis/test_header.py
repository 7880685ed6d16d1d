"""Folders say what their images depend on."""

from dataclasses import replace

import pytest

from tutelage.errors import UserError
from tutelage.synthesis.header import FILE, Header
from tutelage.synthesis.settings import Settings


@pytest.fixture
def header(subject):
    return Header.of(subject, Settings.of("inception", batch_size=8), images=20, rival=None)


def test_it_is_read_as_it_was_written(header, tmp_path):
    assert Header.read(tmp_path) is None
    header.write(tmp_path)
    assert Header.read(tmp_path) == header
    replace(header, images=8).write(tmp_path)
    assert Header.read(tmp_path) == header


def test_batches_hold_every_image_once_and_are_of_about_one_size(header):
    rows = [header.rows(batch) for batch in range(header.batches)]
    assert [number for one in rows for number in one] == list(range(20))
    assert [len(one) for one in rows] == [6, 7, 7]


def test_other_work_is_refused_and_the_name_does_not_count(header, tmp_path):
    header.check(tmp_path, replace(header, teacher="elsewhere"))
    other = replace(header, weights="0123", settings={**header.settings, "lr": 0.5})
    with pytest.raises(UserError, match=r"weights: \w+ there, 0123 now; lr: 0.1 there, 0.5 now.*--out"):
        header.check(tmp_path, other)


def test_a_later_version_is_refused(header, tmp_path):
    header.write(tmp_path)
    file = tmp_path / FILE
    file.write_text(file.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(UserError, match="has version 2"):
        Header.read(tmp_path)
