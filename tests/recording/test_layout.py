from pathlib import Path

import numpy as np
import pytest

from tutelage.errors import UserError
from tutelage.recording import layout
from tutelage.recording.quantization import Quantization

IMAGENET = 1_281_167
TOP5, FULL, HARD = map(Quantization.parse, ("top5", "full", "hard"))


def fkd(keep, views, *, value_bytes=4, class_bytes=None):
    row = layout.row_bytes(keep, 1000, view_bytes=17, value_bytes=value_bytes, class_bytes=class_bytes or value_bytes)
    return layout.total_bytes(row, samples=IMAGENET, views=views) / 1e9


@pytest.mark.parametrize(
    ("options", "of_200", "of_500"),
    [
        ({"keep": FULL}, "1029", "2573"),
        ({"keep": TOP5}, "14.6", "36.5"),
        ({"keep": TOP5, "value_bytes": 2}, "9.5", "23.7"),
        ({"keep": HARD, "class_bytes": 8}, "6.4", "16"),
    ],
    ids=["full float32", "top5 float32", "top5 float16", "hard int64"],
)
def test_published_sizes(options, of_200, of_500):
    for views, published in ((200, of_200), (500, of_500)):
        digits = len(published.partition(".")[2])
        assert f"{fkd(views=views, **options):.{digits}f}" == published


@pytest.mark.parametrize("keep", ["full", "hard", "smoothed", "top5", "top5-renormalized"])
@pytest.mark.parametrize("values", ["float32", "float16"])
@pytest.mark.parametrize("classes", [100, 70_000])
def test_foretold_is_what_rows_take(keep, values, classes, tmp_path):
    dtype = layout.row_dtype(
        parameters=3, keep=Quantization.parse(keep), classes=classes, values=values, layers={"a": (2, 4, 4), "b": (8,)}
    )
    foretold = layout.row_bytes(
        Quantization.parse(keep),
        classes,
        view_bytes=12,
        value_bytes=4 if values == "float32" else 2,
        class_bytes=2 if classes == 100 else 4,
        feature_values=40,
    )
    assert dtype.itemsize == foretold
    np.save(tmp_path / "rows.npy", np.zeros(3, dtype))
    assert 0 < (tmp_path / "rows.npy").stat().st_size - 3 * foretold < 1000


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


def test_too_few_classes_are_refused_before_anything_is_foretold():
    with pytest.raises(UserError, match="keep fewer"):
        layout.row_bytes(TOP5, 3, view_bytes=0, value_bytes=4, class_bytes=2)


def test_shards_stay_small():
    assert layout.rows_per_shard(42) == 16_384
    assert layout.rows_per_shard(16_384) == 16_384
    assert layout.rows_per_shard(16_385) == 16_383
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
