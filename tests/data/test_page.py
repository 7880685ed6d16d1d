"""Each line of `docs/data.md` is what happens: read in silence, read and told in these words, or refused in them."""

import json
import re
import shutil
import warnings
from collections import namedtuple
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import tutelage
from tutelage.data.resolve import resolve_data
from tutelage.data.sources import load_data
from tutelage.data.wrap import as_data
from tutelage.errors import Notice, UserError
from tutelage.models.loading import load_network
from tutelage.models.saving import save_network
from tutelage.models.tokenizers import encoded_for

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
LINES = dict(
    re.fullmatch(r"\| (.+) \| (.+) \|", line).groups()
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| you bring", "| ---"))
)
CASES = {}
CLASSES = ("ant", "bee", "cat")


def case(line):
    """Register what is done for a line of the page; what it returns is what the line says is read."""

    def add(function):
        assert line in LINES, f"the page has no line {line!r}"
        CASES[line] = function
        return function

    return add


def picture(shade, seed, size=8):
    noise = np.random.default_rng(seed).integers(0, 30, (size, size, 3))
    return Image.fromarray((noise + shade).astype(np.uint8))


def photos(root, *folders, count=12, suffix=".png"):
    for shade, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for number in range(count):
            picture(40 * shade, number).save(root / folder / f"{number}{suffix}")
    return root


def names(root, **options):
    return load_data(str(root), validation=0, **options).class_names


# Folders of images


@case("`photos/ant/1.jpg`, `photos/bee/1.jpg`")
def _(root):
    assert names(photos(root, "bee", "ant")) == ("ant", "bee")


@case("`photos/train/ant/1.jpg`, `photos/test/ant/1.jpg`")
def _(root):
    for number, (train, val, test) in enumerate((("train", "val", "test"), ("TRAINING", "Valid", "testing"))):
        parts = [f"{part}/{name}" for part in (train, val, test) for name in ("ant", "bee")]
        data = load_data(str(photos(root / str(number), *parts)))
        assert [data.count(split) for split in ("train", "validation", "test")] == [24] * 3
    for part in ("validation", "dev"):
        parts = [f"{place}/{name}" for place in ("train", part) for name in ("ant", "bee")]
        assert load_data(str(photos(root / part, *parts, count=20))).count("validation") == 40


def split_pair(root, train, test):
    parts = [f"{part}/{name}" for part in (train, test) for name in ("ant", "bee")]
    data = load_data(str(photos(root / train, *parts)), validation=0)
    assert (data.count("train"), data.count("test")) == (24, 24)


@case("`training_set` and `test_set`, `TrainImages`, `train2017`")
def _(root):
    split_pair(root, "training_set", "test_set")
    split_pair(root, "TrainImages", "TestImages")
    split_pair(root, "train2017", "test2017")


@case("`seg_train` and `seg_test`")
def _(root):
    split_pair(root, "seg_train", "seg_test")


@case("`train` and `eval`")
def _(root):
    split_pair(root, "train", "eval")


@case("`trian` and `test`")
def _(root):
    names(photos(root, "trian/ant", "trian/bee", "test/ant", "test/bee"))


@case("`train`, `val` and `valid`")
def _(root):
    names(photos(root, "train/ant", "train/bee", "val/ant", "valid/ant"))


@case("`test` and `mine`, of which none is for training")
def _(root):
    names(photos(root, "mine/ant", "mine/bee", "test/ant", "test/bee"))


@case("one level more, `zip/photos/ant/1.jpg`")
def _(root):
    photos(root / "zip", "photos/ant", "photos/bee")
    names(root / "zip")


@case("one class only")
def _(root):
    names(photos(root, "ant"))


@case("class folders that hold only folders")
def _(root):
    names(photos(root, "insects/ant", "insects/bee", "mammals/cow", "mammals/dog"))


@case("class folders that all hold the same folder, `ant/images/1.jpg`")
def _(root):
    assert names(photos(root, "ant/images", "bee/images")) == ("ant", "bee")


@case("folders in a class folder that has images itself")
def _(root):
    data = load_data(str(photos(root, "ant", "bee", "bee/old")), validation=0)
    assert data.class_names == ("ant", "bee")
    assert data.count("train") + data.count("test") == 36


@case("a class called train, `bus/1.jpg`, `train/1.jpg`")
def _(root):
    assert names(photos(root, "bus", "car", "train")) == ("bus", "car", "train")


@case("class folders beside a folder train that holds folders")
def _(root):
    names(photos(root, "bus", "car", "train/steam", "train/electric"))


@case("`train` and `test` with images and no class folders in them")
def _(root):
    names(photos(root, "train", "test"))


@case("something else beside `train` and `test`")
def _(root):
    parts = [f"{part}/{name}" for part in ("train", "test", "extra") for name in ("ant", "bee")]
    assert names(photos(root, *parts)) == ("ant", "bee")


@case("a class that training has and another split lacks, or whose folder there is empty")
def _(root):
    photos(root, "train/ant", "train/bee", "train/cat", "test/ant", "test/cat")
    for _ in range(2):
        data = load_data(str(root), validation=0)
        assert set(data.test.targets.tolist()) == {0, 2}
        (root / "test" / "bee").mkdir(exist_ok=True)


@case("a class that only another split has")
def _(root):
    names(photos(root, "train/ant", "train/bee", "test/ant", "test/dog"))


@case("an empty class folder in training")
def _(root):
    photos(root, "ant", "bee")
    (root / "cat").mkdir()
    names(root)


@case("class folders that are numbers, 1, 2, 10")
def _(root):
    assert names(photos(root, "1", "2", "10")) == ("1", "10", "2")


@case("class folders whose names look the same, Ant and ant")
def _(root):
    assert names(photos(root, "Ant", "ant", "bee")) == ("Ant", "ant", "bee")


@case("a file or folder whose name is no text in UTF-8")
def _(root):
    # Python reads a byte that is no text, as an old archive left it, as this sign.
    picture(0, 0).save(photos(root, "ant", "bee") / "ant" / "\udcff.png")
    names(root)


@case("anything below a name that begins with a dot, `__MACOSX`, `@eaDir`")
def _(root):
    photos(root, "ant", "bee", "ant/.ipynb_checkpoints", ".thumbs/x", "__MACOSX/ant", "bee/@eaDir")
    (root / "ant" / "._0.png").write_bytes(b"")
    data = load_data(str(root), validation=0)
    assert (data.class_names, data.count("train") + data.count("test")) == (("ant", "bee"), 24)


@case("links to folders and files")
def _(root):
    photos(root, "photos/ant", "kept/bees")
    (root / "photos" / "bee").symlink_to(root / "kept" / "bees")
    picture(0, 99).save(root / "kept" / "another.png")
    (root / "photos" / "ant" / "linked.png").symlink_to(root / "kept" / "another.png")
    (root / "photos" / "ant" / "up").symlink_to(root / "photos")
    data = load_data(str(root / "photos"), validation=0)
    assert (data.class_names, data.count("train") + data.count("test")) == (("ant", "bee"), 25)


@case("two names of one folder, by a link")
def _(root):
    photos(root, "ant", "bee")
    (root / "bug").symlink_to(root / "bee")
    names(root)


@case("a link to nothing")
def _(root):
    photos(root, "ant", "bee")
    (root / "ant" / "gone.png").symlink_to(root / "nowhere.png")
    names(root)


@case("images beside the class folders")
def _(root):
    photos(root, "ant", "bee")
    picture(0, 0).save(root / "cover.png")
    assert names(root) == ("ant", "bee")


# Files and pixels


@case(".bmp .gif .jfif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp, upper case or not")
def _(root):
    photos(root, "ant", "bee")
    endings = CASE_OF_ENDINGS.split(",")[0].split()
    for number, ending in enumerate(endings):
        kind = {".jfif": "JPEG", ".pgm": "PPM"}.get(ending)
        image = picture(0, number).convert("L") if ending == ".pgm" else picture(0, number)
        image.save(root / "ant" / f"more{number}{ending.upper() if number % 2 else ending}", kind)
    data = load_data(str(root), validation=0)
    assert data.count("train") + data.count("test") == 24 + len(endings) == 35


@case("images with other endings, such as .heic and .avif")
def _(root):
    photos(root, "ant", "bee")
    (root / "ant" / "phone.HEIC").write_bytes(b"x")
    (root / "ant" / "web.avif").write_bytes(b"x")
    assert names(root) == ("ant", "bee")


@case("transparent images")
def _(root):
    photos(root, "ant", "bee")
    for number, file in enumerate(sorted(root.glob("*/*.png"))):
        icon = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
        icon.paste((0, 0, 0, 255), (1 + number % 5, 1 + number // 5, 7, 7))
        icon.save(file)
    pixels = load_data(str(root), validation=0).train.images
    assert set(pixels.unique().tolist()) == {0, 255}
    assert (pixels[:, :, 0, 0] == 255).all()


@case("images that are all one colour")
def _(root):
    photos(root, "ant", "bee")
    Image.new("RGB", (8, 8), "red").save(root / "ant" / "0.png")
    names(root)


@case("more than one in a hundred images of a split that are training images too")
def _(root):
    photos(root, "train/ant", "train/bee")
    photos(root, "test/ant", "test/bee")
    names(root)


@case("more than one in a hundred training images that stand under two classes")
def _(root):
    photos(root, "ant", "bee", count=20)
    (root / "bee" / "copy.png").write_bytes((root / "ant" / "0.png").read_bytes())
    names(root)


@case("a file that is damaged or no image")
def _(root):
    photos(root, "ant", "bee")
    (root / "ant" / "0.png").write_bytes((root / "ant" / "0.png").read_bytes()[:40])
    names(root)


@case("more than 8 bits a channel in grey")
def _(root):
    photos(root, "ant", "bee")
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 900).save(root / "ant" / "0.png")
    names(root)


@case("a folder with commas or square brackets in its name")
def _(root):
    for name in ("photos, 2021", "photos [v2]"):
        photos(root / name, "ant", "bee")
        assert names(root / name) == ("ant", "bee")
    table(root / "tables, 2021", {"train": ([0, 1] * 20, named("ant", "bee"))}, label="kind")
    assert names(f"{root / 'tables, 2021'},label=kind") == ("ant", "bee")


# Tables


def named(*classes):
    return datasets.ClassLabel(names=list(classes))


def table(folder, splits, label="label"):
    folder.mkdir(parents=True, exist_ok=True)
    for split, (labels, feature) in splits.items():
        columns = {"image": [picture(20, number) for number in range(len(labels))], label: labels}
        features = datasets.Features({"image": datasets.Image(), label: feature})
        datasets.Dataset.from_dict(columns, features=features).to_parquet(str(folder / f"{split}.parquet"))
    return folder


INT, TEXT, FLOAT = (datasets.Value(kind) for kind in ("int64", "string", "float32"))


@case("a test split that numbers its classes in another order, or with a class less")
def _(root):
    train = ([0, 1, 2] * 10, named(*CLASSES))
    for number, order in enumerate((("cat", "bee", "ant"), ("bee", "cat"))):
        labels = [order.index("bee"), order.index("cat")]
        folder = table(root / str(number), {"train": train, "test": (labels, named(*order))})
        assert load_data(str(folder), validation=0).test.targets.tolist() == [1, 2]


@case("labels that are text")
def _(root):
    assert names(table(root, {"train": (["bee", "ant"] * 20, TEXT)})) == ("ant", "bee")


@case("labels that are numbers with gaps, 7, 500, 100001")
def _(root):
    assert names(table(root, {"train": ([7, 500, 100_001] * 10, INT)})) == ("7", "500", "100001")


@case("a test split whose labels are all -1")
def _(root):
    data = load_data(str(table(root, {"train": ([0, 1] * 20, INT), "test": ([-1] * 6, INT)})), validation=0)
    assert (data.count("train"), data.count("test")) == (32, 8)


@case("a label -1 in training")
def _(root):
    names(table(root, {"train": ([0, 1, -1] * 10, INT)}))


@case("a row without a label")
def _(root):
    names(table(root, {"train": (["cat", "dog", None] * 10, TEXT)}))


@case("fractions")
def _(root):
    names(table(root, {"train": ([0.0, 0.5, 2.9] * 10, FLOAT)}))


@case("lists of classes")
def _(root):
    names(table(root, {"train": ([[0], [0, 2], [1]] * 10, datasets.List(INT))}))


@case("a column of numbers of the samples")
def _(root):
    names(table(root, {"train": (list(range(5, 1105)), INT)}))


@case("a class that only the test split has")
def _(root):
    names(table(root, {"train": (["ant", "bee"] * 20, TEXT), "test": (["ant", "dog"], TEXT)}))


@case("a file of no split, `trian.parquet`")
def _(root):
    names(table(root, {"trian": ([0, 1] * 20, INT), "test": ([0, 1], INT)}))


@case("one split only, and another name than train")
def _(root):
    assert names(table(root, {"test": ([0, 1] * 20, INT)})) == ("0", "1")


# Networks and classes


def saved(folder, classes=CLASSES):
    torch.manual_seed(0)
    network = load_network("tiny_cnn,width=4", num_classes=len(classes)).eval()
    about = {"spec": "tiny_cnn,width=4", "num_classes": len(classes), "in_channels": 3, "class_names": classes}
    save_network(folder, network, input_size=(8, 8), **about)
    return network


def answers(folder, classes, order):
    """Check that a saved network answers in an order of its own classes."""
    inputs, network = torch.rand(4, 3, 8, 8), saved(folder)
    again = load_network(str(folder), num_classes=3, class_names=classes).eval()
    torch.testing.assert_close(again(inputs), network(inputs)[:, order])


@case("a saved network whose classes are the data's in another order")
def _(root):
    answers(root, ("cat", "ant", "bee"), [2, 0, 1])


@case("names that differ in upper case, spaces or hyphens")
def _(root):
    answers(root, ("Ant", "BEE", "cat"), [0, 1, 2])


@case("a saved network of other classes")
def _(root):
    answers(root, ("bee", "cat", "dog"), None)


@case("data to measure on that lack some of the network's classes")
def _(root):
    saved(root)
    pairs = TensorDataset(torch.rand(12, 3, 8, 8), torch.arange(12) % 2)
    assert tutelage.evaluate(str(root), data=as_data(pairs, test=pairs, class_names=("ant", "cat"), hold_out=0))


@case("a network or data whose classes are only numbered")
def _(root):
    answers(root, ("0", "1", "2"), [0, 1, 2])


# Datasets and loaders


class Rows(Dataset):
    def __init__(self, row, count=30, classes=None):
        self._row, self._count = row, count
        if classes is not None:
            self.classes = list(classes)

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        return self._row(index)


IMAGES, LABELS = torch.rand(30, 3, 8, 8), torch.arange(30) % 3
Sample = namedtuple("Sample", "image label index")


def labelled(make, **options):
    return as_data(Rows(lambda index: (IMAGES[index], make(int(LABELS[index]))), **options))


def one_batch(data):
    return next(data.loader("train", batch_size=30, train=False).epoch(0))


@case("samples (input, target), dictionaries, named tuples, or inputs alone")
def _(root):
    rows = (
        lambda i: (IMAGES[i], int(LABELS[i])),
        lambda i: {"image": IMAGES[i], "label": int(LABELS[i])},
        lambda i: Sample(IMAGES[i], int(LABELS[i]), i),
    )
    for row in rows:
        for data in (as_data(Rows(row), hold_out=0), as_data(DataLoader(Rows(row), batch_size=30))):
            batch = one_batch(data)
            assert torch.equal(batch.inputs, IMAGES)
            assert torch.equal(batch.targets, LABELS)
    assert as_data(Rows(lambda i: IMAGES[i]), hold_out=0).unlabelled == {"train"}


@case("tuples of three without names")
def _(root):
    as_data(Rows(lambda i: (IMAGES[i], int(LABELS[i]), i)))


@case("a DataLoader whose last batch has a single sample")
def _(root):
    student = nn.Sequential(nn.Conv2d(3, 2, 8), nn.Flatten(), nn.BatchNorm1d(2), nn.Linear(2, 3))
    loader = DataLoader(TensorDataset(IMAGES[:9], LABELS[:9]), batch_size=4)
    tutelage.distill("supervised", student=student, data=loader, epochs=1, lr=0.01, progress=False)


@case("images outside 0 to 1 for a network with statistics of its own")
def _(root):
    data = TensorDataset(4 * IMAGES - 2, LABELS)
    student = "tiny_cnn,width=3,normalize=imagenet"
    tutelage.distill("supervised", student=student, data=data, epochs=1, lr=0.01, progress=False)


@case("a sample with NaN or infinite values")
def _(root):
    images = IMAGES.clone()
    images[3, 0, 0, 0] = torch.nan
    student = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    data = TensorDataset(images, LABELS)
    tutelage.distill("supervised", student=student, data=data, epochs=1, lr=0.01, progress=False)


@case("any batch size, sampler or `collate_fn`")
def _(root):
    pairs = TensorDataset(IMAGES, LABELS)
    student, teacher = (nn.Sequential(nn.Flatten(), nn.Linear(192, 3)) for _ in range(2))
    loaders = (
        DataLoader(pairs, batch_size=1),
        DataLoader(pairs, batch_size=16, drop_last=True),
        DataLoader(pairs, batch_sampler=[[0, 1, 2], [3, 4, 5, 6]]),
        DataLoader(pairs, batch_size=4, sampler=torch.utils.data.SubsetRandomSampler(range(8))),
        DataLoader(pairs, batch_size=4, collate_fn=lambda rows: tuple(map(torch.stack, zip(*rows)))),
    )
    for loader in loaders:
        tutelage.distill("kd", student=student, teacher=teacher, data=loader, epochs=1, lr=0.01, progress=False)


@case("labels as numbers, whole floats, `[batch, 1]`, or rows with a single 1")
def _(root):
    for targets in (LABELS, LABELS.float(), LABELS[:, None], nn.functional.one_hot(LABELS)):
        pairs = TensorDataset(IMAGES, targets)
        for data in (as_data(pairs, hold_out=0), as_data(DataLoader(pairs, batch_size=30))):
            assert torch.equal(one_batch(data).targets, LABELS)


@case("mixed labels, or several classes a sample")
def _(root):
    labelled(lambda label: [0.7, 0.3, 0.0])


@case("fractions as labels")
def _(root):
    labelled(lambda label: label + 0.3)


@case("names as labels")
def _(root):
    labelled(lambda label: CLASSES[label])


@case("-1 for a sample without a label")
def _(root):
    data = as_data(TensorDataset(IMAGES, torch.where(LABELS == 1, -1, LABELS)), hold_out=0)
    assert data.train.targets[:4].tolist() == [0, -1, 2, 0]


@case("labels 7, 500, 100001")
def _(root):
    labelled(lambda label: [7, 500, 100_001][label])


@case("one label only")
def _(root):
    labelled(lambda label: 0)


@case("an attribute `targets` that differs from the samples' targets")
def _(root):
    dataset = Rows(lambda i: (IMAGES[i], int(LABELS[i]) % 2))
    dataset.targets = LABELS
    assert as_data(dataset).num_classes == 2


def other_order(**options):
    train = Rows(lambda i: (IMAGES[i], int(LABELS[i])), classes=CLASSES)
    return train, Rows(lambda i: (IMAGES[i], i % 2), classes=("cat", "ant"), **options)


@case("a test set whose `classes` have another order, or lack one")
def _(root):
    train, test = other_order()
    assert as_data(train, test=test).test.targets[:2].tolist() == [2, 0]


@case("a DataLoader whose dataset's `classes` have another order")
def _(root):
    train, test = other_order()
    as_data(train, test=DataLoader(test, batch_size=4))


@case("an iterable dataset without a length")
def _(root):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(zip(IMAGES, LABELS))

    as_data(DataLoader(Stream(), batch_size=4))


def scenes(root, *, masks=None, sizes=((8, 8),) * 6):
    """Write images and masks of two classes, or other masks, with the split within the two folders."""
    for number, size in enumerate(sizes):
        mask = np.arange(size[0] * size[1]).reshape(size).astype(np.uint8) % 2 if masks is None else masks(number)
        image = np.random.default_rng(number).integers(0, 255, (*size, 3), dtype=np.uint8)
        for kind, pixels in (("images", image), ("masks", mask)):
            (root / kind / "train").mkdir(parents=True, exist_ok=True)
            shown = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
            shown.save(root / kind / "train" / f"{number}.png")
    return root


def classes(root, **options):
    return load_data(str(root), task="segmentation", validation=0, **options).class_names


@case("`images/train/1.jpg` with `masks/train/1.png`, or `train/images/1.jpg` with `train/masks/1.png`")
def _(root):
    scenes(root / "1")
    for kind in ("images", "masks"):
        shutil.copytree(root / "1" / kind / "train", root / "2" / "train" / kind)
    assert classes(root / "1", augment="none") == classes(root / "2", augment="none") == ("0", "1")


def tabled(root, *columns):
    scenes(root / "files")
    files = sorted((root / "files" / "images" / "train").glob("*.png"))
    places = {name: [str(file).replace("images", kind) for file in files] for name, kind in columns}
    kinds = datasets.Features(dict.fromkeys(places, datasets.Image()))
    (root / "table").mkdir(parents=True)
    datasets.Dataset.from_dict(places, features=kinds).to_parquet(root / "table" / "train.parquet")
    return root / "table"


@case("a table with a column of images and one called mask, annotation or label")
def _(root):
    assert classes(tabled(root, ("image", "images"), ("annotation", "masks"))) == ("0", "1")


@case("two columns that may be the masks")
def _(root):
    classes(tabled(root, ("image", "images"), ("one", "masks"), ("two", "masks")))


def striped(numbers, kind=np.uint8):
    return np.resize(np.array(numbers, dtype=kind), (8, 8))


@case("masks in grey, with a palette, or of 16 bits")
def _(root):
    plain = Image.fromarray(striped([0, 1, 2]))
    coloured = Image.frombytes("P", plain.size, plain.tobytes())
    coloured.putpalette(range(0, 200))
    kinds = [plain, coloured, Image.fromarray(striped([0, 1, 2], np.uint16))]
    assert classes(scenes(root, masks=lambda number: kinds[number % 3])) == ("0", "1", "2")


@case("pixels of the number 255")
def _(root):
    assert classes(scenes(root, masks=lambda _: striped([0, 1, 255]))) == ("0", "1")


@case("other numbers that are no class, `scenes,ignore=0+254`")
def _(root):
    scenes(root, masks=lambda _: striped([0, 1, 2, 254]))
    assert classes(f"{root},ignore=0+254") == ("1", "2")


@case("masks that hold 0 and 255 alone")
def _(root):
    assert classes(scenes(root, masks=lambda _: striped([0, 255]))) == ("0", "255")


@case("a number beyond the classes in `classes.txt`")
def _(root):
    scenes(root, masks=lambda _: striped([0, 1, 2]))
    (root / "classes.txt").write_text("sky\nroad\n")
    classes(root)


@case("images of several sizes")
def _(root):
    assert classes(scenes(root, sizes=((8, 12), (10, 9)) * 3)) == ("0", "1")


@case("`--image-size 64`")
def _(root):
    data = load_data(str(scenes(root, sizes=((80, 128),) * 6)), task="segmentation", validation=0.5, image_size=64)
    assert data.image_size == (40, 64)
    (batch,) = data.loader("validation", train=False, batch_size=9, workers=0).epoch(0)
    assert batch.inputs.shape[2:] == (40, 64)
    assert batch.targets.shape[1:] == (80, 128)


@case("a mask of another size than its image")
def _(root):
    classes(scenes(root, sizes=((8, 8), (8, 9), *((8, 8),) * 4), masks=lambda _: striped([0, 1])))


@case("an image without a mask")
def _(root):
    (scenes(root) / "masks" / "train" / "5.png").unlink()
    classes(root)


@case("masks in colours")
def _(root):
    classes(scenes(root, masks=lambda _: picture(10, 0)))


@case("`ignore=` or `classes=` for another task")
def _(root):
    load_data(f"{scenes(root)},ignore=255")


@case("in Python, samples (image, mask) of one size; 255 or -1 is a pixel without a class")
def _(root):
    masks = torch.tensor([[0, 1], [255, -1]]).repeat(1, 4, 4)
    data = as_data([(image, masks[0]) for image in torch.rand(12, 3, 8, 8)], task="segmentation")
    assert data.class_names == ("0", "1")


@case("in Python, a mask of another size than its image")
def _(root):
    as_data([(image, torch.zeros(4, 4, dtype=torch.long)) for image in torch.rand(12, 3, 8, 8)], task="segmentation")


def rooms(root, *, depths=None, sizes=((8, 8),) * 6, save=None):
    """Write images and depth maps of 16 bits in millimetres, or other maps."""
    for number, size in enumerate(sizes):
        millimetres = np.random.default_rng(number).integers(800, 4000, size).astype(np.uint16)
        image = np.random.default_rng(number).integers(0, 255, (*size, 3), dtype=np.uint8)
        for kind, pixels in (("images", image), ("depth", millimetres if depths is None else depths(number))):
            (root / kind / "train").mkdir(parents=True, exist_ok=True)
            if kind == "depth" and save == "npy":
                np.save(root / kind / "train" / f"{number}.npy", pixels)
            else:
                Image.fromarray(pixels).save(root / kind / "train" / f"{number}.png")
    return root


def metres(root):
    return load_data(str(root), task="depth", validation=0, augment="none").train.targets


@case("`images/train/1.jpg` with `depth/train/1.png` or `depth/train/1.npy`")
def _(root):
    assert torch.equal(
        metres(f"{rooms(root / 'a')},scale=1/1000"), metres(f"{rooms(root / 'b', save='npy')},scale=0.001")
    )


@case("a table with a column of images and one called depth or depth_map")
def _(root):
    rooms(root / "files")
    assert metres(f"{tabled(root, ('image', 'images'), ('depth_map', 'depth'))},scale=0.001").shape[1:] == (8, 8)


@case("PNG of 16 bits, TIFF of fractions, `.npy` of whole numbers or fractions, without `scale=`")
def _(root):
    assert metres(rooms(root)).max() <= 4


@case("`rooms,scale=0.001,ignore=65535`")
def _(root):
    found = metres(f"{rooms(root, depths=lambda _: striped([1500, 65535], np.uint16))},scale=0.001,ignore=65535")
    assert found.unique().tolist() == [0.0, 1.5]


@case("depths whose median is below 1 cm or above 1 km")
def _(root):
    metres(rooms(root, depths=lambda _: striped([1.5e3, 2e3], np.float32), save="npy"))


@case("some maps without any depth")
def _(root):
    metres(f"{rooms(root, depths=lambda number: striped([1500 * (number > 0)], np.uint16))},scale=0.001")


@case("no training map with a depth")
def _(root):
    metres(rooms(root, depths=lambda _: striped([0], np.uint16)))


@case("depth maps of 8 bits without `scale=`")
def _(root):
    metres(rooms(root, depths=lambda _: striped([15])))


@case("depth maps in colours")
def _(root):
    metres(rooms(root, depths=lambda _: np.zeros((8, 8, 3), dtype=np.uint8)))


@case("a depth map of another size than its image")
def _(root):
    metres(rooms(root, sizes=((8, 8), (8, 9), *((8, 8),) * 4), depths=lambda _: striped([1500], np.uint16)))


@case("an image without a depth map")
def _(root):
    (rooms(root) / "depth" / "train" / "5.png").unlink()
    metres(root)


@case("`scale=` for another task")
def _(root):
    classes(f"{scenes(root)},scale=0.001")


@case("in Python, samples (image, map of metres) of one size")
def _(root):
    data = as_data([(image, 2 * image[0]) for image in torch.rand(12, 3, 8, 8)], task="depth")
    assert data.num_classes == 1


@case("in Python, maps of whole numbers")
def _(root):
    as_data([(image, torch.full((8, 8), 1500)) for image in torch.rand(12, 3, 8, 8)], task="depth")


@case("a pair of arrays instead of a dataset")
def _(root):
    as_data((IMAGES.numpy(), LABELS.numpy()))


CASE_OF_ENDINGS = next(line for line in LINES if line.startswith(".bmp"))


def reviews(root, *columns, text="a good film", ending=".jsonl"):
    root.mkdir(exist_ok=True)
    rows = [dict.fromkeys(columns or ("text",), text) | {"label": number % 2} for number in range(40)]
    file = root / f"train{ending}"
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


@case("a folder or a file of Parquet, CSV, TSV or JSON lines with one or two columns of text")
def _(root):
    file = reviews(root, "one", "two")
    assert load_data(str(file)).num_classes == load_data(str(root)).num_classes == 2
    datasets.load_dataset("json", data_files=str(file))["train"].to_parquet(root.parent / "texts.parquet")
    for ending, mark in ((".csv", ","), (".tsv", "\t")):
        table = root.parent / f"texts{ending}"
        table.write_text("\n".join([f"text{mark}label", *(f"good film{mark}{number % 2}" for number in range(40))]))
        assert len(load_data(str(table)).train.columns) == 1
    assert len(load_data(str(root.parent / "texts.parquet")).train.columns) == 2


@case("more than two columns of text")
def _(root):
    load_data(str(reviews(root, "one", "two", "three")))


@case("`data,text=premise+hypothesis,tokens=128`")
def _(root):
    train = load_data(f"{reviews(root, 'other', 'premise', 'hypothesis')},text=premise+hypothesis,tokens=128").train
    assert (len(train.columns), train.limit) == (2, 128)


@case("empty texts")
def _(root):
    load_data(str(reviews(root, text="")))


@case("GLUE's data, `glue/cola` of the hub or a folder cola with its classes")
def _(root):
    rows = {"sentence": ["good"] * 40, "label": [0, 1] * 20}
    label = datasets.ClassLabel(names=["unacceptable", "acceptable"])
    features = datasets.Features({"sentence": datasets.Value("string"), "label": label})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(root.parent / "cola.parquet")
    (root.parent / "cola").mkdir()
    (root.parent / "cola.parquet").rename(root.parent / "cola" / "train.parquet")
    assert load_data(str(root.parent / "cola")).task.primary == "mcc"


@case("splits called validation_matched and validation_mismatched")
def _(root):
    root.mkdir()
    for split in ("train", "validation_matched", "validation_mismatched"):
        rows = {"premise": ["good"] * 40, "hypothesis": ["bad"] * 40, "label": [0, 1] * 20}
        datasets.Dataset.from_dict(rows).to_parquet(root / f"{split}.parquet")
    assert load_data(str(root)).measured == ("validation", "validation-mismatched", "test")


@case("unequal classes and `--metric macro-f1+mcc`")
def _(root):
    task = load_data(str(photos(root, "ant", "bee", count=20)), metric="macro-f1+mcc").task
    assert (task.primary, task.watched[:2]) == ("macro_f1", ("macro_f1", "mcc"))


@case("a metric of another task")
def _(root):
    load_data("digits", metric="pearson")


@case("`--metric f1` for more than two classes")
def _(root):
    load_data("digits", metric="f1")


@case("texts and a network of images")
def _(root):
    encoded_for(load_data(str(reviews(root))), ["resnet20"])


@case("an augmentation or an image size for texts")
def _(root):
    with pytest.raises(UserError, match="no size and no augmentation"):
        load_data(str(reviews(root)), image_size=32)
    load_data(str(reviews(root)), augment="flip")


# Texts to continue


def corpus(root, options="", **columns):
    """Write rows of columns of texts, and read them as texts to continue."""
    root.mkdir(exist_ok=True)
    rows = [{name: f"{text} {number}" for name, text in columns.items()} for number in range(20)]
    (root / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return load_data(f"{root}{options}", task="language")


def reader(folder, words):
    """Return the name of a network of eight positions that reads some words."""
    transformers = pytest.importorskip("transformers")
    transformers.GPT2Config(n_positions=8, vocab_size=len(words) + 2).save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *words])}
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    return f"transformers:{folder}"


@case("a folder or a file of plain text, `train.txt`, `test.txt`")
def _(root):
    root.mkdir()
    for split in ("train", "test"):
        (root / f"{split}.txt").write_text("a line\n" * 20)
    assert load_data(str(root), task="language").count("test") == 20
    assert load_data(str(root / "train.txt"), task="language").count("test") == 4


@case("a table with one column of text, or one called text")
def _(root):
    assert corpus(root, line="a").train.columns[0][0].startswith("a ")
    assert corpus(root, text="b", title="c").train.columns[0][0].startswith("b ")


@case("empty lines or texts")
def _(root):
    root.mkdir()
    (root / "train.txt").write_text("one\n\n" * 20)
    assert load_data(str(root), task="language").count("test") == 4


@case("`corpus,blocks=128`")
def _(root):
    network = reader(root.parent / "network", ["a"])
    data = encoded_for(corpus(root, ",blocks=8", text="a a"), [network])
    assert set(data.train.lengths.tolist()[:-1]) == {8}


@case("texts longer than the network takes, without `blocks=`")
def _(root):
    data = encoded_for(corpus(root, text="a " * 20), [reader(root.parent / "network", ["a"])])
    assert set(data.train.lengths.tolist()) == {8}


@case("`pairs,text=question+answer`, or columns called prompt and completion")
def _(root):
    columns = {"prompt": "a", "completion": "b"}
    for options, given in (("", columns), (",text=q+r", {"q": "a", "r": "b"})):
        data = encoded_for(corpus(root, options, **given), [reader(root.parent / "network", ["a", "b"])])
        assert data.train.read_batch(torch.tensor([0]))[1][0, 0] == -1


@case("prompts and `blocks=`")
def _(root):
    corpus(root, ",blocks=8", prompt="a", completion="b")


@case("several columns of text")
def _(root):
    corpus(root, one="a", two="b")


@case("`label=`")
def _(root):
    corpus(root, ",text=one,label=two", one="a", two="b")


@case("`blocks=` for another task")
def _(root):
    load_data(f"{reviews(root)},blocks=8")


@case("a folder without texts")
def _(root):
    load_data(str(photos(root, "ant", "bee")), task="language")


@case("a teacher of another vocabulary")
def _(root):
    networks = [reader(root.parent / name, words) for name, words in (("one", ["a", "b"]), ("two", ["b", "a"]))]
    encoded_for(corpus(root, text="a b"), networks[:1], networks[1:])


@case("in Python, samples of `input_ids`, `attention_mask` and `labels`, -100 where a token does not count")
def _(root):
    ids, mask = torch.randint(1, 9, (20, 5)), torch.ones(20, 5, dtype=torch.int64)
    labels = ids.clone()
    labels[:, 1] = -100
    rows = [dict(zip(("input_ids", "attention_mask", "labels"), row, strict=True)) for row in zip(ids, mask, labels)]
    batch = next(iter(as_data(rows, task="language", hold_out=0).loader("train", batch_size=20, train=False).epoch(0)))
    assert torch.equal(batch.targets[:, 1:4], ids[:, 2:])
    assert (batch.targets[:, [0, 4]] == -1).all()


# Novel classes


def plain(root, *folders, count=6):
    """Put images without classes into a folder."""
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture(100, number).save(root / f"{number}.png")
    return root


def found(data, novel=2, **options):
    return resolve_data(str(data) if isinstance(data, Path) else data, task="discovery", novel=novel, **options)


def with_minus_ones(classes=(0, 1, -1)):
    return [(torch.rand(3, 8, 8), classes[number % len(classes)]) for number in range(60)]


@case("labelled images and `--novel 2`")
def _(root):
    data = found(photos(root, "ant", "bee", "cat", "dog"))
    assert data.class_names == ("ant", "bee", "novel 1", "novel 2")
    assert data.task.hidden == ("cat", "dog")
    assert set(data.train.targets.tolist()) == {0, 1, -1}
    assert set(data.test.targets.tolist()) == {0, 1, 2, 3}
    assert set(data.validation.targets.tolist()) == {0, 1}


@case("labelled images and `--novel ant+cat`")
def _(root):
    data = found(photos(root, "ant", "bee", "cat", "dog"), "ant+cat")
    assert data.class_names == ("bee", "dog", "novel 1", "novel 2")
    assert data.task.hidden == ("ant", "cat")


@case("labelled images, `--unlabelled more` and `--novel 3`")
def _(root):
    data = found(photos(root / "known", "ant", "bee"), 3, unlabelled=str(plain(root / "more", count=30)))
    assert data.num_classes == 5
    assert (data.train.targets == -1).sum() >= 24


@case("in Python, samples with the label -1 and `novel=3`")
def _(root):
    assert found(with_minus_ones(), 3).class_names == ("0", "1", "novel 1", "novel 2", "novel 3")


@case("labelled test samples of the novel classes of such data, numbered after the known ones")
def _(root):
    data = found(with_minus_ones(), test=with_minus_ones((0, 1, 2, 3)))
    assert set(data.test.targets.tolist()) == {0, 1, 2, 3}
    assert data.task.primary == "accuracy"


@case("no test samples of novel classes")
def _(root):
    assert found(with_minus_ones(), test=with_minus_ones((0, 1))).task.primary == "known_accuracy"


@case("`--task discovery` without `--novel`")
def _(root):
    found(with_minus_ones(), None)


@case("`--novel dog`, a class that the data do not have")
def _(root):
    found(photos(root, *CLASSES), "dog")


@case("so many that fewer than two stay known")
def _(root):
    found(photos(root, *CLASSES), 2)


@case("names where samples have no label")
def _(root):
    found(photos(root / "known", "ant", "bee"), "ant", unlabelled=str(plain(root / "more", count=30)))


@case("more novel classes than unlabelled samples")
def _(root):
    found(with_minus_ones()[:18], 7)


@case("`--novel` for another task")
def _(root):
    resolve_data(with_minus_ones(), task="regression", novel=2)


@case("a DataLoader")
def _(root):
    found(DataLoader(with_minus_ones(), batch_size=6))


@case("a method that does not look for novel classes, such as dkd")
def _(root):
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    tutelage.distill(
        "dkd", student=network, teacher=network, data=with_minus_ones(), task="discovery", novel=2, progress=False
    )


def test_every_line_of_the_page_is_tested():
    assert set(CASES) == set(LINES)


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_page(line, tmp_path):
    outcome = LINES[line]
    quoted = [".*".join(map(re.escape, words.split("…"))) for words in re.findall(r"“(.+?)”", outcome)]
    refused = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Notice)
        try:
            CASES[line](tmp_path / "photos")
        except UserError as error:
            refused = str(error)
    told = [str(warning.message) for warning in caught if issubclass(warning.category, Notice)]
    assert (refused is not None) == outcome.startswith("refused"), refused or outcome
    if refused is None:
        assert bool(told) == ("told" in outcome), told
    for words in quoted:
        assert any(re.search(words, text) for text in ([refused] if refused else told)), (refused, told)


def test_the_cache_is_where_the_page_says(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    first = load_data(str(photos(tmp_path / "photos", "ant", "bee")))
    assert list((tmp_path / "cache").glob("decoded-*"))
    shutil.copytree(tmp_path / "photos", tmp_path / "copy")
    assert load_data(str(tmp_path / "copy")).fingerprint == first.fingerprint
    assert len(list((tmp_path / "cache").glob("decoded-*"))) == 1
