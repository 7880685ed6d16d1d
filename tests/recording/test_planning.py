"""The work of a recording: whole, in order, shared without gaps, and of known size."""

from dataclasses import replace

import pytest
import torch

from tutelage.recording.planning import Chunks, Unit, expected_size, images_in, in_bytes, units, without
from tutelage.system.parts import Part
from tutelage.testing.toys import toy_header


def pairs(work):
    return [(view, unit.shard) for unit in work for view in unit.views]


def test_units_are_every_shard_of_every_view_once():
    work = units(3, views=10, at_once=4, part=Part())
    assert sorted(pairs(work)) == [(view, shard) for view in range(10) for shard in range(3)]
    assert [unit.views for unit in work[::3]] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]


def test_views_become_complete_in_order():
    left = dict.fromkeys(range(10), 3)
    finished = []
    for view, _ in pairs(units(3, views=10, at_once=4, part=Part())):
        left[view] -= 1
        if not left[view]:
            finished.append(view)
    assert finished == sorted(finished)


@pytest.mark.parametrize("of", [1, 2, 5, 40])
def test_parts_share_the_units_without_gap_or_overlap(of):
    shares = [units(3, views=10, at_once=4, part=Part(number + 1, of)) for number in range(of)]
    together = [pair for share in shares for pair in pairs(share)]
    assert sorted(together) == sorted(pairs(units(3, views=10, at_once=4, part=Part())))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_what_is_done_is_left_out():
    work = [Unit(0, (0, 1)), Unit(1, (0, 1))]
    assert without(work, {(0, 0), (1, 1), (0, 1)}) == [Unit(0, (1,))]


def test_batches_are_the_samples_of_each_shard_in_order():
    header = toy_header(samples=25, rows_per_shard=10)
    work = [Unit(0, (0, 1, 2)), Unit(2, (5,))]
    chunks = Chunks(header, work, 4)
    found = list(chunks.epoch(0, torch.Generator()))
    assert [batch.tolist() for batch in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [20, 21, 22, 23], [24]]
    assert len(chunks) == len(found)
    assert images_in(header, work) == 3 * 10 + 5


def test_the_size_follows_from_the_row():
    # 360,000 times 3 parameters of 4 bytes, 5 classes of 2 and 5 probabilities of 4.
    header = toy_header(samples=45_000, augmentation="crop:4,flip", parameters=3)
    assert expected_size(header, views=8) == "8 views of 45,000 samples, top5 in float32: 15.1 MB"
    assert expected_size(replace(header, keep="full", values="float16"), views=1).endswith(": 1.4 MB")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_960, "1.0 MB"), (14.6e9, "14.6 GB")],
)
def test_bytes_for_people(count, text):
    assert in_bytes(count) == text


def test_even_the_largest_have_a_unit():
    assert in_bytes(2573e12) == "2573.0 TB"
