"""The page on recordings says what is there."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tutelage.data.augment import Augmentation
from tutelage.recording import layout, shards
from tutelage.recording.header import DataIdentity, Header, TeacherIdentity
from tutelage.recording.quantization import Quantization
from tutelage.recording.reading import Recording

PAGE = (Path(__file__).parents[2] / "docs" / "recordings.md").read_text()
[SOURCE] = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def header_of(**changes):
    facts = {
        "keep": "top5",
        "values": "float32",
        "classes": 100,
        "samples": 45_000,
        "rows_per_shard": 16_384,
        "augmentation": "crop:4,flip",
        "parameters": 3,
        "image_size": (32, 32),
        "seed": 0,
        "precision": "32-true",
        "teacher": TeacherIdentity(name="resnet32x4", source="runs/teacher", weights="abc", normalization=""),
        "data": DataIdentity(name="cifar100", class_names=("apple",), labels="def", probes="01", pixels="2"),
        "layers": {},
    }
    return Header(**facts | changes)


@pytest.fixture(scope="module", params=["float32", "float16"])
def recording(request, tmp_path_factory):
    """One view with the number of the page's; numbered from the first, it is the only one that is finished."""
    folder, header = tmp_path_factory.mktemp("recording") / "r32x4", header_of(values=request.param)
    header.write(folder)
    for shard in range(header.shards):
        with shards.writing(folder, header, 3, shard) as rows:
            logits = torch.randn(len(rows), 100, generator=torch.Generator().manual_seed(shard)) * 2
            for field, content in header.quantization.pack(logits, values=header.values).items():
                rows[field] = content
    return Recording(folder)


def test_ten_lines_of_numpy_read_what_tutelage_reads(recording):
    lines = SOURCE.replace('"recordings/r32x4"', repr(str(recording.folder)))
    assert lines != SOURCE
    names = {}
    exec(compile(lines, "docs/recordings.md", "exec"), names)
    _, output = recording.read(torch.tensor([names["sample"]]), torch.tensor([0]))
    assert names["probabilities"].sum() == pytest.approx(1)
    np.testing.assert_allclose(names["logits"], output.logits[0].numpy(), rtol=1e-5)
    assert len([line for line in SOURCE.splitlines() if line and not line.startswith(("import", "from"))]) < 10


def test_the_page_knows_every_part_of_the_header(recording):
    stored = json.loads((recording.folder / "recording.json").read_text())
    parts = {*stored, *stored["teacher"], *stored["data"]}
    assert {part for part in parts if f"`{part}`" not in PAGE} == set()


def test_the_page_knows_every_field():
    fields = header_of(layers={"LAYER": (1, 1, 1)}).row_dtype.names + header_of(keep="full").row_dtype.names
    assert {field for field in fields if f"| `{field}` |" not in PAGE} == set()


def gigabytes(keep, views, *, ours, half=False):
    keep, width = Quantization.parse(keep), Augmentation.parse("resized-crop,flip").width
    value = 2 if half else 4
    indices = 2 if ours else 8 if keep.name == "hard" else value
    row = layout.row_bytes(keep, 1000, view_bytes=4 * width if ours else 17, value_bytes=value, class_bytes=indices)
    return layout.total_bytes(row, samples=1_281_167, views=views) / 1e9


@pytest.mark.parametrize(
    ("kept", "keep", "half"),
    [
        ("`full`, float32", "full", False),
        ("`full`, float16", "full", True),
        ("`top5`, float32", "top5", False),
        ("`top5`, float16", "top5", True),
        ("`hard`", "hard", False),
    ],
)
def test_the_table_of_sizes_is_what_is_foretold(kept, keep, half):
    sizes = [gigabytes(keep, views, ours=ours, half=half) for views in (200, 500) for ours in (False, True)]
    cells = [f"{size:.0f}" if size > 100 else f"{size:.1f}" for size in sizes]
    assert f"| {kept} | {' | '.join(cells)} |" in PAGE


def test_small_sizes_are_what_is_foretold():
    def of(keep, values="float32"):
        return f"{header_of(keep=keep, values=values).row_dtype.itemsize * 45_000 / 1e6:.1f}"

    sentence = (
        f"`full` {of('full')} in float32 and {of('full', 'float16')} in float16, "
        f"`top5` {of('top5')} and {of('top5', 'float16')}, `hard` {of('hard')}."
    )
    assert sentence in " ".join(PAGE.split())


def test_what_comes_on_top_is_small(recording):
    path = layout.shard_path(recording.folder, 3, 2)
    whole = path.stat().st_size + layout.checksum_path(path).stat().st_size
    assert 0 < whole - len(recording.header.rows(2)) * recording.header.row_dtype.itemsize < 500
