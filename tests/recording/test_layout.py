from pathlib import Path

import numpy as np
import pytest

from tutelage.errors import UserError
from tutelage.recording import layout
from tutelage.recording.quantization import Quantization

TOP5, HARD = map(Quantization.parse, ("top5", "hard"))


@pytest.mark.parametrize("keep", ["full", "hard", "smoothed", "top5", "top5-renormalized"])
@pytest.mark.parametrize(("values", "value_bytes"), [("float32", 4), ("float16", 2)])
@pytest.mark.parametrize(("classes", "index_bytes"), [(100, 2), (70_000, 4)])
def test_rows_take_what_they_hold_and_no_more(keep, values, value_bytes, classes, index_bytes, tmp_path):
    dtype = layout.row_dtype(
        parameters=3, keep=Quantization.parse(keep), classes=classes, values=values, layers={"a": (2, 4, 4), "b": (8,)}
    )
    one = {"full": classes * value_bytes, "hard": index_bytes, "smoothed": index_bytes + value_bytes}
    answer = one.get(keep, 5 * (index_bytes + value_bytes))
    assert dtype.itemsize == 3 * 4 + answer + (32 + 8) * value_bytes
    np.save(tmp_path / "rows.npy", np.zeros(3, dtype))
    assert 0 < (tmp_path / "rows.npy").stat().st_size - 3 * dtype.itemsize < 1000


def test_rows_name_what_they_hold():
    dtype = layout.row_dtype(parameters=3, keep=TOP5, classes=100, values="float16", layers={"layer1": (4, 2, 2)})
    assert dtype == np.dtype(
        [
            ("parameters", "<f4", (3,)),
            ("classes", "<u2", (5,)),
            ("probabilities", "<f2", (5,)),
            ("feature:layer1", "<f2", (4, 2, 2)),
        ]
    )


def test_rows_without_view_parameters_can_be_stored(tmp_path):
    dtype = layout.row_dtype(parameters=0, keep=HARD, classes=10, values="float32", layers={})
    rows = np.zeros(4, dtype)
    rows["classes"] = [[3], [1], [4], [1]]
    np.save(tmp_path / "rows.npy", rows)
    found = np.load(tmp_path / "rows.npy", mmap_mode="r")
    assert found.dtype == dtype
    assert found[[2, 0]]["classes"].tolist() == [[4], [3]]
    assert found["parameters"].shape == (4, 0)


def test_too_few_classes_are_refused():
    with pytest.raises(UserError, match="keep fewer"):
        layout.row_dtype(parameters=0, keep=TOP5, classes=3, values="float32", layers={})


def test_shards_stay_small():
    assert layout.rows_per_shard(42) == 8_192
    assert layout.rows_per_shard(32_768) == 8_192
    assert layout.rows_per_shard(32_769) == 8_191
    assert layout.rows_per_shard(2**40) == 1


@pytest.mark.parametrize(("samples", "rows"), [(1, 5), (5, 5), (6, 5), (50, 7), (16_384, 16_384)])
def test_shards_hold_every_sample_once_and_in_order(samples, rows):
    count = layout.shard_count(samples, rows)
    ranges = [layout.shard_range(samples, rows, shard) for shard in range(count)]
    assert [position for part in ranges for position in part] == list(range(samples))
    assert all(len(part) == rows for part in ranges[:-1])
    for position in range(samples):
        assert ranges[position // rows][position % rows] == position


def test_files_are_named_by_view_and_shard():
    path = layout.shard_path(Path("r"), 3, 1)
    assert path == Path("r/view-0003/shard-0001.npy")
    assert layout.checksum_path(path) == Path("r/view-0003/shard-0001.npy.sha256")
    assert layout.shard_path(Path("r"), 12_345, 0).parent.name == "view-12345"
