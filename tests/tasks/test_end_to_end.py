"""Every task from the data to the report: distill, compare, doctor, evaluate, and a run that is killed and goes on."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import tutelage
from tutelage.cli.main import main
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.wrap import as_data
from tutelage.methods import KD
from tutelage.report.html import render_html
from tutelage.report.verdict import verdict
from tutelage.testing.trials import KilledError, _Killer
from tutelage.training.driver import Driver
from tutelage.training.settings import Training

SAMPLES, SIZE = 72, 8
QUICK = {"epochs": 2, "batch_size": 24, "lr": 0.05, "device": "cpu", "threads": 1, "compile": "off", "progress": False}


class Toy:
    """Noisy images whose brightness in three parts is what their targets are made of."""

    def __init__(self, task, labelled=True):
        generator = torch.Generator().manual_seed(0)
        parts = torch.rand(SAMPLES, 3, generator=generator)
        noise = 0.1 * torch.rand(SAMPLES, 3, SIZE, SIZE, generator=generator)
        self.images = (parts[:, :, None, None] * 0.9 + noise).clamp(0, 1)
        self.labelled = labelled
        self.answers = {
            "classification": parts.argmax(1),
            "multi-label": (parts > 0.5).float(),
            "regression": parts[:, :2],
            "unlabelled": parts.argmax(1),
            "segmentation": self.masks(),
            "depth": self.depths(),
        }[task]

    def masks(self):
        """Return what each pixel is: dark, middling or bright, and nothing at the left edge."""
        masks = (3 * self.images.mean(1)).long().clamp(max=2)
        masks[:, :, 0] = 255
        return masks

    def depths(self):
        """Return how far each pixel is: the brighter, the nearer; nothing at the left edge."""
        depths = 3 - 2 * self.images.mean(1)
        depths[:, :, 0] = 0
        return depths

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return (self.images[index], self.answers[index]) if self.labelled else self.images[index]


OUTPUTS = {"classification": 3, "multi-label": 3, "regression": 2, "unlabelled": 3, "segmentation": 3, "depth": 1}
TASKS = list(OUTPUTS)


def network(width, outputs):
    torch.manual_seed(width)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, outputs),
    )  # fmt: skip


def network_for(task, width):
    if task not in ("segmentation", "depth"):
        return network(width, OUTPUTS[task])
    torch.manual_seed(width)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, OUTPUTS[task], 1),
    )  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_distill_compare_and_evaluate(task, tmp_path):
    data, test = Toy(task), Toy(task)
    teacher, student = network_for(task, 12), network_for(task, 6)
    trained = tutelage.distill("kd", student=student, teacher=teacher, data=data, test=test, task=task, **QUICK)
    scores = tutelage.evaluate(trained, data=test, task=task)
    kind = scores.metrics
    content = tutelage.compare(
        ["kd", "at"], student=student, teacher=teacher, data=data, test=test, task=task, seeds=2, out=tmp_path, **QUICK
    )
    primary = content["task"]["primary"]
    assert primary in kind
    for row in content["rows"]:
        assert not row.get("error")
        assert row["summary"]["best"][f"test_{primary}"]["n"] == 2
    again = content["rows"][0]["runs"][0]["best"]
    assert again[f"test_{primary}"] == pytest.approx(scores.scores[primary], rel=1e-4), "as evaluate says"
    paired = content["rows"][1]["summary"]["paired"]["best"]
    assert paired["n"] == 2
    assert verdict(content)
    title = kind[primary].title
    page = render_html(content)
    assert title in page or title.capitalize() in page


@pytest.mark.parametrize("task", ["multi-label", "regression", "segmentation", "depth"])
def test_the_best_epoch_is_that_of_the_main_metric_in_its_direction(task):
    data = as_data(Toy(task), task=task)
    torch.manual_seed(0)
    method = KD(network_for(task, 6), FrozenTeacher(network_for(task, 12)))
    state = Driver(Training(epochs=5, batch_size=24, lr=0.3, schedule="constant", threads=1)).fit(method, data)
    history = state.history[f"validation_{data.task.primary}"]
    best = max(history) if data.task.metrics[data.task.primary].higher_is_better else min(history)
    assert state.best_epoch == history.index(best) + 1


@pytest.mark.parametrize("task", TASKS)
def test_a_killed_run_goes_on_bit_for_bit(task, tmp_path):
    def fit(file, reporter=None):
        torch.manual_seed(0)
        method = KD(network_for(task, 6), FrozenTeacher(network_for(task, 12)))
        training = Training(epochs=2, batch_size=24, lr=0.05, log_every=1, checkpoint_seconds=0.0, threads=1)
        Driver(training, reporter=reporter).fit(method, as_data(Toy(task), task=task), checkpoint_file=file)
        return method.state_dict()

    straight = fit(None)
    with pytest.raises(KilledError):
        fit(tmp_path / "c.pt", _Killer(3))
    resumed = fit(tmp_path / "c.pt")
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())


def test_images_without_labels_teach_through_the_teacher_alone():
    teacher, student = network(12, 3), network(6, 3)
    settings = {"student": student, "teacher": teacher, "data": Toy("classification", labelled=False), **QUICK}
    trained = tutelage.distill("kd", test=Toy("classification"), alpha=0.5, **settings)
    assert tutelage.evaluate(trained, data=Toy("classification")).accuracy > 0
    with pytest.raises(
        tutelage.UserError, match="it needs labels or other targets to learn from.*Methods that can: .*kd"
    ):
        tutelage.distill("supervised", **{**settings, "teacher": None})


def test_hidden_labels_change_nothing_that_is_learned():
    teacher, student = network(12, 3), network(6, 3)
    settings = {"student": student, "teacher": teacher, "validation": Toy("classification"), **QUICK}
    hidden = tutelage.distill("at", data=Toy("classification"), task="unlabelled", **settings)
    bare = tutelage.distill("at", data=Toy("classification", labelled=False), task="unlabelled", **settings)
    assert all(torch.equal(value, bare.state_dict()[name]) for name, value in hidden.state_dict().items())


@pytest.fixture
def parquet(tmp_path):
    """A folder of Parquet with a column for each task."""
    datasets = pytest.importorskip("datasets")
    names = ["red", "green", "blue"]
    kinds = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=names),
        "tags": datasets.List(datasets.ClassLabel(names=names)),
        "shares": datasets.List(datasets.Value("float32")),
    }
    toy = Toy("regression")
    pixels = (toy.images * 255).byte().permute(0, 2, 3, 1).numpy()
    bright = toy.images.mean((2, 3))
    rows = {
        "image": [Image.fromarray(np.ascontiguousarray(image)) for image in pixels],
        "label": bright.argmax(1).tolist(),
        "tags": [[names[k] for k in range(3) if row[k] > 0.5] for row in bright.tolist()],
        "shares": toy.answers.tolist(),
    }
    folder = tmp_path / "parquet"
    folder.mkdir()
    for split in ("train", "test"):
        datasets.Dataset.from_dict(rows, features=datasets.Features(kinds)).to_parquet(folder / f"{split}.parquet")
    return folder


@pytest.mark.parametrize(
    ("task", "column", "said"),
    [("multi-label", "tags", "mean average precision"), ("regression", "shares", "mean absolute error")],
)
def test_the_commands_know_the_task(task, column, said, parquet, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    data = ["--task", task, "--data", f"{parquet},label={column}"]
    common = [*data, "--epochs", "1", "--threads", "1", "--device", "cpu"]
    assert main(["distill", "supervised", "--student", "tiny_cnn,width=4", *common, "--out", "teacher"]) == 0
    kd = ["kd", "--student", "tiny_cnn,width=3", "--teacher", "teacher", *common]
    assert main(["doctor", *kd]) == 0
    assert said in capsys.readouterr().out
    assert main(["distill", *kd, "--out", "kd"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "kd", *data]) == 0
    told = capsys.readouterr().out
    assert said in told
    content = json.loads((tmp_path / "kd" / "comparison.json").read_text())
    assert content["task"]["name"] == task
    metric = content["task"]["metrics"][content["task"]["primary"]]
    value = content["rows"][0]["summary"]["best"][f"test_{content['task']['primary']}"]["mean"]
    scale = 100 if metric["unit"] == "share" else 1
    assert f"{scale * value:.{metric['digits']}f}" in told, "evaluate says what the report says"
    assert (tmp_path / "kd" / "report.html").exists()


def test_masks_from_files_to_the_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    toy = Toy("segmentation")
    for number, (image, mask) in enumerate(zip(toy.images, toy.answers, strict=True)):
        split = "test" if number % 4 == 0 else "train"
        for kind, pixels in (("images", (image * 255).byte().permute(1, 2, 0)), ("masks", mask.byte())):
            (tmp_path / "scenes" / kind / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / "scenes" / kind / split / f"{number}.png")
    (tmp_path / "scenes" / "classes.txt").write_text("night\ndusk\nday\n")
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def dense(num_classes, width=4):\n"
        "    return nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, num_classes, 1))\n"
    )
    data = ["--task", "segmentation", "--data", "scenes"]
    common = [*data, "--epochs", "1", "--batch_size", "12", "--threads", "1", "--device", "cpu"]
    networks = ["--student", "net.py:dense", "--teacher", "net.py:dense,width=8"]
    assert (
        main(["compare", "supervised", "kd", "cwd", "structured", *networks, *common, "--seeds", "1", "--out", "all"])
        == 0
    )
    content = json.loads((tmp_path / "all" / "comparison.json").read_text())
    assert content["data"]["class_names"] == ["night", "dusk", "day"]
    assert [len(row["runs"][0]["pictures"]["iou"]) for row in content["rows"]] == [3] * 4
    page = (tmp_path / "all" / "report.html").read_text()
    assert "IoU of each class" in page
    assert page.count("data:image/jpeg;base64,") == 4
    capsys.readouterr()
    folder = next((tmp_path / "all" / "runs").glob("cwd*")) / "seed-0" / "distill"
    assert main(["evaluate", str(folder), *data]) == 0
    value = content["rows"][2]["summary"]["best"]["test_miou"]["mean"]
    assert f"{100 * value:.2f}" in capsys.readouterr().out, "evaluate says what the report says"
