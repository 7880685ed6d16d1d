"""Answers from a file: how they find their images, and what is missing or ambiguous."""

import csv
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import tutelage
from tutelage.core.teachers.bought import BoughtTeacher
from tutelage.core.teachers.naming import named_teacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.testing.toys import CLASSES, SAMPLES, ToyNetwork, toy_data

DATA = toy_data()
LABELS = [(number * 5) % CLASSES for number in range(SAMPLES)]
QUICK = {"epochs": 1, "batch_size": 16, "precision": "32-true", "progress": False, "device": "cpu"}


def png(number):
    file = io.BytesIO()
    Image.fromarray(DATA.train.images[number].permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()


def parquet(folder, rows=range(SAMPLES), **columns):
    file = folder / "answers.parquet"
    cells = {"image": [{"bytes": png(row), "path": None} for row in rows]} if "row" not in columns else {}
    pq.write_table(pa.table(cells | columns), file)
    return file


def answers(file, data=DATA):
    teacher = named_teacher(f"file:{file}", data).answers
    settled, notes = teacher.settle(data)
    assert settled is data
    batch = Batch(inputs=data.train.images.float(), indices=torch.arange(len(data.train)))
    return teacher(batch).logits, notes


def test_labels_find_their_images_in_any_order(tmp_path):
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(0)).tolist()
    logits, notes = answers(parquet(tmp_path, order, label=[LABELS[row] for row in order]))
    assert logits.argmax(1).tolist() == LABELS
    assert "The teacher's labels for 48 training samples come from" in notes[-1]
    names = [DATA.class_names[LABELS[row]] for row in order]
    bare = [png(row) for row in order]
    assert torch.equal(answers(parquet(tmp_path, order, image=bare, label=names))[0], logits)


def test_probabilities_by_row(tmp_path):
    share = torch.rand(SAMPLES, CLASSES).softmax(1)
    rows = list(range(SAMPLES))[::-1]
    file = parquet(tmp_path, row=rows, probabilities=[share[row].tolist() for row in rows])
    assert torch.allclose(answers(file)[0].softmax(1), share, atol=1e-6)


def test_file_names_lie_beside_the_file(tmp_path):
    (tmp_path / "pictures").mkdir()
    for row in range(SAMPLES):
        (tmp_path / f"pictures/{row}.png").write_bytes(png(row))
    file = tmp_path / "answers.csv"
    with file.open("w") as opened:
        writer = csv.writer(opened)
        writer.writerow(["file_name", "label"])
        writer.writerows((f"pictures/{row}.png", LABELS[row]) for row in range(SAMPLES))
    assert answers(file)[0].argmax(1).tolist() == LABELS


def test_part_of_the_training_samples_finds_its_own_among_more_answers(tmp_path):
    kept = list(range(0, SAMPLES, 3))
    data = DATA.with_splits(train=DATA.train.select(kept))
    logits, notes = answers(parquet(tmp_path, label=LABELS), data)
    assert logits.argmax(1).tolist() == [LABELS[row] for row in kept]
    assert f"; {SAMPLES - len(kept)} of its images are not among them" in notes[-1]


@pytest.mark.parametrize(
    ("rows", "columns", "match"),
    [
        (
            range(SAMPLES - 2),
            {"label": LABELS[:-2]},
            "no answer for 2 of the 48 training samples, such as numbers 46, 47",
        ),
        (
            [*range(SAMPLES), 3],
            {"label": [*LABELS, LABELS[3] + 1]},
            "two different answers for one image, in rows 3 and 48",
        ),
        (range(SAMPLES), {"label": [None, *LABELS[1:]]}, "Rows 0 of .* have no label"),
        (range(SAMPLES), {"label": ["dog"] * SAMPLES}, "the label 'dog', which is no class of the data"),
        (range(SAMPLES), {"label": [CLASSES] * SAMPLES}, "names the classes 6 to 6, and there are 6"),
        (range(SAMPLES), {"logits": [[np.nan] * CLASSES] * SAMPLES}, "NaN or infinite"),
        (range(SAMPLES), {"probabilities": [[3.0] * CLASSES] * SAMPLES}, "are they logits"),
        (range(SAMPLES), {"row": [*range(1, SAMPLES + 1)], "label": LABELS}, "must be the numbers 0 to 47"),
    ],
)
def test_what_is_missing_or_ambiguous_is_refused(rows, columns, match, tmp_path):
    with pytest.raises(UserError, match=match):
        answers(parquet(tmp_path, rows, **columns))


def test_the_same_answer_twice_is_one(tmp_path):
    rows = [*range(SAMPLES), 3]
    assert answers(parquet(tmp_path, rows, label=[LABELS[row] for row in rows]))[0].argmax(1).tolist() == LABELS


def test_a_file_without_answers_is_told(tmp_path):
    with pytest.raises(UserError, match="none of logits, probabilities, label, which say answers"):
        BoughtTeacher(parquet(tmp_path, class_name=LABELS))
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(UserError, match=r"name it .parquet or .csv"):
        BoughtTeacher(tmp_path / "a.txt")
    with pytest.raises(UserError, match="cannot be read"):
        BoughtTeacher(tmp_path / "none.parquet")


def test_it_teaches_and_other_answers_are_another_teacher(tmp_path):
    file = parquet(tmp_path, label=LABELS)
    network = tutelage.distill("kd", student=ToyNetwork(4), teacher=f"file:{file}", data=DATA, **QUICK)
    assert all(parameter.isfinite().all() for parameter in network.parameters())
    one, other = BoughtTeacher(file), BoughtTeacher(parquet(tmp_path, label=LABELS[::-1]))
    for teacher in (one, other):
        teacher.settle(DATA)
    assert one.identity() != other.identity()
    with pytest.raises(UserError, match="unix asks the teacher about mixtures of images, and these answers were given"):
        tutelage.distill("unix", student=ToyNetwork(4), teacher=f"file:{file}", data=DATA, **QUICK)
