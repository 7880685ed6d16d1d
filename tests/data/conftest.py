"""Small generated sources, and caches that go away."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def _own_caches(tmp_path_factory, monkeypatch):
    import datasets

    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path_factory.getbasetemp() / "tutelage-cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "hf-cache")


@pytest.fixture
def make_photos(tmp_path):
    """Write `photos/SPLIT/CLASS/N.png`; class `k` is a shade of its own, so that a label can be seen."""

    def make(splits=("train",), classes=("ant", "bee", "cat"), count=6, size=(10, 12), mode="RGB", name="photos"):
        root = tmp_path / name
        for place, split in enumerate(splits):
            for shade, label in enumerate(classes):
                folder = root / split / label
                folder.mkdir(parents=True)
                for number in range(count):
                    shape = size if mode == "L" else (*size, 3)
                    pixels = np.full(shape, 40 * shade + number, dtype=np.uint8)
                    pixels[:, size[1] // 2 :] += 20
                    # No image stands in two splits.
                    pixels[-1, 0] += place
                    Image.fromarray(pixels).save(folder / f"{number}.png")
        return root

    return make


@pytest.fixture
def make_parquet(tmp_path):
    """Write a folder of Parquet with Hugging Face metadata; returns it and the pixels by split."""
    import datasets

    def make(rows, *, labels=None, features=None, label="label", image="img", side=8, name="table"):
        folder, pixels = tmp_path / name, {}
        folder.mkdir()
        chance = np.random.default_rng(0)
        for split, count in rows.items():
            pixels[split] = chance.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
            columns = {
                image: [Image.fromarray(array) for array in pixels[split]],
                label: [index % 3 for index in range(count)] if labels is None else labels[split],
            }
            feature = features or datasets.ClassLabel(names=["ant", "bee", "cat"])
            table = datasets.Dataset.from_dict(
                columns, features=datasets.Features({image: datasets.Image(), label: feature})
            )
            table.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
        return folder, pixels

    return make
