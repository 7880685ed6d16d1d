"""Answers to samples without labels, from images, tables, texts and a user's own data, for every task."""

import csv

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

import tutelage
from tutelage.data.task import TASKS, task_named
from tutelage.errors import UserError
from tutelage.models.loading import load_network
from tutelage.models.saving import save_network


def picture(file, seed, size=(8, 8)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)).save(file)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    network = load_network("tiny_cnn,width=4", num_classes=2, in_channels=3)
    about = {"spec": "tiny_cnn,width=4", "num_classes": 2, "in_channels": 3, "class_names": ("ant", "bee")}
    save_network(folder, network, **about, input_size=(8, 8), task="classification")
    return str(folder)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    # Without class folders, in two folders, and one of another size.
    for number, name in enumerate(("b.png", "a.png", "more/c.png")):
        picture(folder / name, number, (8, 8) if number else (12, 10))
    return folder


def logits_of(run, photos, names):
    from tutelage.data.decode import to_pixels

    network = load_network(run, num_classes=2, in_channels=3).eval()
    pixels = [to_pixels(Image.open(photos / name), channels=3, size=(8, 8)) for name in names]
    with torch.no_grad():
        return network(torch.from_numpy(np.stack(pixels)).float() / 255)


def test_images_of_a_folder_are_answered_by_name(run, photos, tmp_path, capsys):
    out = tmp_path / "new" / "answers.csv"
    found = tutelage.predict(run, data=str(photos), out=out)
    names = ["a.png", "b.png", "more/c.png"]
    wanted = logits_of(run, photos, names).softmax(1)
    assert found["file"].tolist() == names
    assert found["prediction"].tolist() == [("ant", "bee")[best] for best in wanted.argmax(1)]
    torch.testing.assert_close(torch.from_numpy(found["p_bee"]), wanted[:, 1])
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["file"] for row in rows] == names
    assert [float(row["p_ant"]) for row in rows] == pytest.approx(wanted[:, 0].tolist(), rel=1e-6)
    assert "answers to" in capsys.readouterr().out


def test_other_files_hold_the_same(run, photos, tmp_path):
    quiet = {"data": str(photos), "progress": False}
    found = tutelage.predict([run, run], out=tmp_path / "answers.parquet", **quiet)
    table = pq.read_table(tmp_path / "answers.parquet").to_pydict()
    assert table == {name: values.tolist() for name, values in found.items()}
    tutelage.predict(run, out=tmp_path / "answers.tsv", **quiet)
    lines = (tmp_path / "answers.tsv").read_text().splitlines()
    assert lines == ["file\tprediction", *map("\t".join, zip(found["file"], found["prediction"]))]


def test_nothing_is_overwritten_unless_asked(run, photos, tmp_path):
    out = tmp_path / "answers.csv"
    out.write_text("mine")
    with pytest.raises(UserError, match="is there already: choose another --out"):
        tutelage.predict(run, data=str(photos), out=out, progress=False)
    assert out.read_text() == "mine"
    tutelage.predict(run, data=str(photos), out=out, progress=False, overwrite=True)
    assert out.read_text().startswith("file,prediction")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"out": "answers.txt"}, "has none of the endings .csv, .tsv, .parquet"),
        ({"out": "answers.csv", "split": "test"}, "has no splits: leave out --split"),
        ({"out": "answers.csv", "task": "segmentation"}, "answers are pictures|answers 2 samples with shape"),
    ],
)
def test_what_cannot_be_answered_is_told_and_leaves_nothing(run, photos, tmp_path, asked, message):
    with pytest.raises(UserError, match=message):
        tutelage.predict(run, data=str(photos), progress=False, **asked | {"out": tmp_path / asked["out"]})
    assert list(tmp_path.iterdir()) == []


def test_texts_without_labels(bert, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    place = str(bert())
    file = tmp_path / "reviews.csv"
    texts = ["good a good", "bad", "a bad bad film a"]
    file.write_text("review,stars\n" + "\n".join(f"{text},{number}" for number, text in enumerate(texts)))
    found = tutelage.predict(f"transformers:{place}", data=str(file), progress=False)
    network = AutoModelForSequenceClassification.from_pretrained(place).eval()
    tokens = AutoTokenizer.from_pretrained(place)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = network(**tokens).logits.softmax(1)
    assert found["index"].tolist() == [0, 1, 2]
    names = [network.config.id2label[number] for number in range(2)]
    torch.testing.assert_close(torch.from_numpy(found[f"p_{names[1]}"]), wanted[:, 1])


def test_the_hidden_test_split_of_glue_is_answered_by_the_numbers_of_its_classes(bert, tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    names = ("unacceptable", "acceptable")
    place = bert()
    network = load_network(f"transformers:{place}", num_classes=2, in_channels=0)
    about = {"spec": f"transformers:{place}", "num_classes": 2, "in_channels": 0, "class_names": names}
    save_network(tmp_path / "run", network, **about)
    features = Features({"sentence": Value("string"), "label": ClassLabel(names=list(names)), "idx": Value("int32")})
    (tmp_path / "cola").mkdir()
    for split, label in (("train", 1), ("test", -1)):
        rows = {"sentence": ["a good film", "bad"] * 2, "label": [label] * 4, "idx": range(4)}
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "cola" / f"{split}.parquet")
    out = tmp_path / "CoLA.tsv"
    found = tutelage.predict(str(tmp_path / "run"), data=str(tmp_path / "cola"), out=out, progress=False)
    head, *lines = out.read_text().splitlines()
    assert head == "index\tprediction"
    assert [line.split("\t")[0] for line in lines] == ["0", "1", "2", "3"]
    assert {line.split("\t")[1] for line in lines} <= {"0", "1"}
    tutelage.predict(str(tmp_path / "run"), data=str(tmp_path / "cola"), out=tmp_path / "a.csv", progress=False)
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == "index,prediction,p_unacceptable,p_acceptable"
    assert len(found["prediction"]) == 4


def test_masks_are_pictures_of_each_images_own_size(photos, tmp_path):
    picture(photos / "masks" / "a.png", 7)
    network = nn.Conv2d(3, 3, 1)
    out = tmp_path / "masks"
    found = tutelage.predict(network, data=str(photos), task="segmentation", out=out, progress=False)
    assert found["file"].tolist() == ["a.png", "b.png", "more/c.png"]
    for name, size in (("a.png", (8, 8)), ("b.png", (12, 10)), ("more/c.png", (8, 8))):
        pixels = torch.from_numpy(np.asarray(Image.open(photos / name)).copy()).permute(2, 0, 1).float() / 255
        with torch.no_grad():
            wanted = network(pixels[None]).argmax(1)[0]
        mask = np.asarray(Image.open(out / name))
        assert mask.shape == size
        assert (mask == wanted.numpy()).all()
    assert (out / "classes.txt").read_text().split() == ["0", "1", "2"]
    with pytest.raises(UserError, match="is there already"):
        tutelage.predict(network, data=str(photos), task="segmentation", out=out, progress=False)
    tutelage.predict(network, data=str(photos), task="segmentation", out=out, progress=False, overwrite=True)
    with pytest.raises(UserError, match=r"name a folder for them, out="):
        tutelage.predict(network, data=str(photos), task="segmentation", progress=False)
    assert [file.name for file in tmp_path.iterdir()] == ["masks"]


def test_numbers_and_sets_of_a_users_own_data():
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(6, 1, 2, 2))
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    with torch.no_grad():
        wanted = network(torch.stack([row[0] for row in data]))
    found = tutelage.predict(network, data=WithoutTargets(data), task="regression", progress=False)
    torch.testing.assert_close(torch.from_numpy(found["prediction"]), wanted[:, 0])


class WithoutTargets(torch.utils.data.Dataset):
    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.data[index][0]


def test_every_task_says_how_its_answers_are_written():
    answers = torch.tensor([[2.0, -1.0, 0.5], [-1.0, -2.0, -3.0]])
    wanted = {
        "classification": ["cat", "cat"],
        "multi-label": ["cat|cow", ""],
        "regression": None,
        "unlabelled": None,
    }
    for name in TASKS:
        task = task_named(name)
        if not task.writes_answers:
            with pytest.raises(UserError, match="not written to files"):
                tutelage.predict(nn.Linear(1, 1), data="digits", task=name, progress=False)
            continue
        if task.has_maps:
            found = task.answer_maps(torch.eye(3)[None, :, :, None])
            assert found.tolist() == ([[[2718], [1000], [1000]]] if name == "depth" else [[[0], [1], [2]]])
            with pytest.raises(UserError, match="not written in a table"):
                task.answer_columns(answers, ("cat", "dog", "cow"))
            continue
        columns = task.answer_columns(answers, ("cat", "dog", "cow"))
        assert all(len(values) == 2 for values in columns.values())
        if wanted[name] is not None:
            assert columns["prediction"].tolist() == wanted[name]
            assert list(columns)[1:] == ["p_cat", "p_dog", "p_cow"]
    assert task_named("regression").answer_columns(answers, ("a", "b", "c"))["prediction of b"].tolist() == [-1, -2]
    sets = task_named("multi-label").answer_columns(answers, ("cat", "dog", "cow"))
    torch.testing.assert_close(torch.from_numpy(sets["p_dog"]), answers[:, 1].sigmoid())
