"""The page on recordings says what is there."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tutelage.data.augment import Augmentation
from tutelage.recording import layout, shards
from tutelage.recording.reading import Recording
from tutelage.testing.toys import toy_header

PAGE = (Path(__file__).parents[2] / "docs" / "recordings.md").read_text()
[SOURCE] = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
HEADER = toy_header(
    classes=100, samples=45_000, rows_per_shard=16_384, augmentation="crop:4,flip", parameters=3, image_size=(32, 32)
)


KEEPS = ["top5", "top5-renormalized", "top100", "smoothed", "hard", "full"]


@pytest.fixture(scope="module", params=[(keep, values) for keep in KEEPS for values in ("float32", "float16")])
def recording(request, tmp_path_factory):
    """One view with the number of the page's; numbered from the first, it is the only one that is finished."""
    keep, values = request.param
    folder, header = tmp_path_factory.mktemp("recording") / "r32x4", replace(HEADER, keep=keep, values=values)
    header.write(folder)
    for shard in range(header.shards):
        with shards.writing(folder, header, 3, shard) as rows:
            logits = torch.randn(len(rows), 100, generator=torch.Generator().manual_seed(shard)) * 2
            header.quantization.fill(rows, logits, values=header.values)
    return Recording(folder)


def test_ten_lines_of_numpy_read_what_tutelage_reads(recording):
    lines = SOURCE.replace('"recordings/r32x4"', repr(str(recording.folder)))
    assert lines != SOURCE
    assert len([line for line in SOURCE.splitlines() if line and not line.startswith(("import", "from"))]) == 10
    if recording.header.keep == "full":
        [first, last] = re.split("^(?=kept = )", lines, flags=re.MULTILINE)
        assert len(last.splitlines()) == 6
        said = re.search(r"`(answer\S+)` are the logits themselves, and the last six lines fall away", PAGE)
        lines = f"{first}logits = {said[1]}"
    names = {}
    exec(compile(lines, "docs/recordings.md", "exec"), names)
    _, output = recording.read(torch.tensor([names["sample"]]), torch.tensor([0]))
    np.testing.assert_allclose(names["logits"], output.logits[0].numpy(), rtol=1e-5, atol=1e-6)


def test_the_page_knows_every_part_of_the_header(recording):
    stored = json.loads((recording.folder / "recording.json").read_text())
    parts = {*stored, *stored["teacher"], *stored["data"]}
    assert {part for part in parts if f"`{part}`" not in PAGE} == set()


def test_the_page_knows_every_field():
    fields = replace(HEADER, layers={"LAYER": (1, 1, 1)}).row_dtype.names + replace(HEADER, keep="full").row_dtype.names
    assert {field for field in fields if f"| `{field}` |" not in PAGE} == set()


def ours(keep, values):
    """Bytes of a view of an image of ImageNet, here."""
    augmentation = "resized-crop,flip"
    width = Augmentation.parse(augmentation).width
    header = replace(HEADER, keep=keep, values=values, classes=1000, augmentation=augmentation, parameters=width)
    return header.row_dtype.itemsize


def theirs(keep, values):
    """The same in FKD's layout: 17 bytes of a view, an index as wide as a value, eight bytes for that of `hard`."""
    value = {"float32": 4, "float16": 2}[values]
    return 17 + {"full": 1000 * value, "top5": 5 * 2 * value, "hard": 8}[keep]


@pytest.mark.parametrize(
    ("kept", "keep", "values"),
    [
        ("`full`, float32", "full", "float32"),
        ("`full`, float16", "full", "float16"),
        ("`top5`, float32", "top5", "float32"),
        ("`top5`, float16", "top5", "float16"),
        ("`hard`", "hard", "float32"),
    ],
)
def test_the_table_of_sizes_is_what_is_announced(kept, keep, values):
    rows = [(row(keep, values), views) for views in (200, 500) for row in (theirs, ours)]
    sizes = [layout.total_bytes(row, samples=1_281_167, views=views) / 1e9 for row, views in rows]
    cells = [f"{size:.0f}" if size > 100 else f"{size:.1f}" for size in sizes]
    assert f"| {kept} | {' | '.join(cells)} |" in PAGE


def test_small_sizes_are_what_is_announced():
    def of(keep, values="float32"):
        return f"{replace(HEADER, keep=keep, values=values).row_dtype.itemsize * 45_000 / 1e6:.1f}"

    sentence = (
        f"`full` {of('full')} in float32 and {of('full', 'float16')} in float16, "
        f"`top5` {of('top5')} and {of('top5', 'float16')}, `hard` {of('hard')}."
    )
    assert sentence in " ".join(PAGE.split())


def test_what_comes_on_top_is_small(recording):
    path = layout.shard_path(recording.folder, 3, 2)
    whole = path.stat().st_size + layout.checksum_path(path).stat().st_size
    assert 0 < whole - len(recording.header.rows(2)) * recording.header.row_dtype.itemsize < 500
