"""A teacher on a server: what is asked and stored, and what happens when the server fails."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import tutelage
from tutelage.core.teachers.naming import named_teacher
from tutelage.core.teachers.remote import RemoteTeacher
from tutelage.data.augment import Augmentation
from tutelage.data.batch import Batch
from tutelage.errors import Notice, UserError
from tutelage.system.web import Server
from tutelage.testing.toys import CLASSES, SAMPLES, ToyNetwork, toy_data

IMAGES = torch.randint(256, (10, 3, 12, 16), generator=torch.Generator().manual_seed(0)).float() / 255
QUICK = {"epochs": 1, "batch_size": 16, "precision": "32-true", "progress": False, "device": "cpu"}


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    monkeypatch.setattr(Server, "_pause_after", lambda self, number, failure: 0.01)


def ask(teacher, images=IMAGES):
    return teacher(Batch(inputs=images)).logits


def expected(box, images=IMAGES):
    return torch.from_numpy(box.answer(images.numpy())["logits"])


@pytest.mark.parametrize("options", ["", ",binary=false", ",batch=3", ",batch=3,binary=false"])
def test_the_answers_are_the_server_s_and_come_in_parts(box, options):
    teacher = RemoteTeacher(box.address + options)
    assert torch.equal(ask(teacher), expected(box))
    assert [len(images) for images, _ in box.sent] == ([3, 3, 3, 1] if "batch" in options else [10])
    assert all(binary == ("binary" not in options) for _, binary in box.sent)
    assert teacher.queries == teacher.spent == box.asked == 10


def test_no_sample_is_asked_about_twice_by_any_teacher_of_any_run(box):
    ask(RemoteTeacher(box.address))
    again = RemoteTeacher(box.address)
    assert torch.equal(ask(again, IMAGES.flip(0)), expected(box).flip(0))
    assert (box.asked, again.queries, again.spent) == (10, 0, 10)
    # Equal samples of one batch are one question.
    other = IMAGES[:1] * 0.5
    answers = ask(again, torch.cat([other, IMAGES[:2], other]))
    assert box.asked == 11
    assert torch.equal(answers[0], answers[3])


def test_other_pixels_another_version_and_another_normalisation_are_other_questions(box):
    ask(RemoteTeacher(box.address), IMAGES[:2])
    ask(RemoteTeacher(f"{box.address},normalize=0.5:0.5"), IMAGES[:2])
    assert np.allclose(box.sent[-1][0], (IMAGES[:2].numpy() - 0.5) / 0.5)
    box.metadata["versions"] = ["2"]
    ask(RemoteTeacher(box.address), IMAGES[:2])
    ask(RemoteTeacher(box.address), IMAGES[:2] * 0.5)
    assert box.asked == 8


def test_bytes_and_channels_last_are_sent_where_the_server_takes_them(box):
    box.metadata["inputs"][0] |= {"datatype": "UINT8", "shape": [-1, 12, 16, 3]}
    teacher = RemoteTeacher(box.address)
    teacher.settle(toy_data())
    ask(teacher)
    sent = box.sent[0][0]
    assert sent.dtype == np.uint8
    assert np.array_equal(sent, (IMAGES * 255).round().byte().permute(0, 2, 3, 1).numpy())
    with pytest.raises(UserError, match="takes bytes, and the images go from"):
        ask(teacher, IMAGES * 3 - 1)


@pytest.mark.parametrize("fault", [500, 503, 429, "reset"])
def test_what_passes_is_asked_again(box, fault):
    box.faults = [fault, fault]
    teacher = RemoteTeacher(box.address)
    assert torch.equal(ask(teacher), expected(box))
    assert len(box.sent) == 3
    # A server that turned the question away did no work; any other failure may cost.
    assert teacher.spent == (10 if fault in (503, 429) else 30)


def test_a_slow_answer_is_a_failure_after_the_timeout(box):
    box.faults = ["slow"]
    assert torch.equal(ask(RemoteTeacher(f"{box.address},timeout=0.3")), expected(box))
    assert len(box.sent) == 2
    box.faults = ["slow"] * 2
    with pytest.raises(UserError, match=r"failed 2 times in a row, .*ReadTimeoutError.*timeout=SECONDS"):
        ask(RemoteTeacher(f"{box.address},timeout=0.2,tries=2"), IMAGES * 0.5)


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        ("nan", "NaN or infinite numbers for 10 of 10 samples"),
        ("shape", r"replied with the shape \[10, 5\], and \[10, 6\] was expected"),
        ("short", r"asked about 10 samples and replied with the shapes \[\[9, 6\]\]"),
        ("junk", "no answer of the Open Inference Protocol"),
        (400, r"refused the question \(400\): no: None None"),
        (401, "authorization is missing: name the variable that holds it"),
        (302, r"leads elsewhere \(302\), which is not followed"),
    ],
)
def test_a_wrong_answer_is_refused_and_not_stored(box, fault, match):
    teacher = RemoteTeacher(box.address)
    box.faults = [fault]
    with pytest.raises(UserError, match=match):
        ask(teacher)
    assert len(box.sent) == 1
    assert torch.equal(ask(teacher), expected(box))


def test_a_server_that_dies_comes_back_and_is_asked_on(box):
    teacher = RemoteTeacher(f"{box.address},batch=2,tries=100")
    port, before = box.server_address[1], []

    def die_and_come_back():
        box.stop()
        time.sleep(0.1)
        before.append(type(box)(port))

    answer = box.answer

    def last(images):
        # Dies once it has answered the second question.
        if len(box.sent) == 2:
            threading.Thread(target=die_and_come_back).start()
            time.sleep(0.05)
        return answer(images)

    box.answer = last
    logits = ask(teacher)
    box.answer = answer
    assert torch.equal(logits, expected(box))
    [second] = before
    assert second.asked + box.asked in (10, 12)
    second.stop()


def test_stored_answers_serve_without_the_server(box):
    teacher = named_teacher(box.address, toy_data()).answers
    images = toy_data().example(SAMPLES)
    ask(teacher, images)
    box.metadata_status = 500
    again = named_teacher(f"{box.address},tries=1", toy_data()).answers
    with pytest.warns(Notice, match="Only stored answers can be used for now"):
        again.settle(toy_data())
    assert torch.equal(ask(again, images), ask(teacher, images))
    assert again.known_by() == teacher.known_by()
    box.faults = [500]
    with pytest.raises(UserError, match="failed 1 times in a row"):
        ask(again, images * 0.5)


def test_the_budget_holds_over_runs_and_is_checked_before_anything_is_asked(box):
    def budgeted(queries):
        return named_teacher(box.address, toy_data(), queries=queries).answers

    with pytest.raises(UserError, match=r"budget of 9 queries does not suffice: 0 are spent, and 10 more"):
        ask(budgeted(9))
    assert box.asked == 0
    ask(budgeted(10))
    ask(budgeted(10))
    with pytest.raises(UserError, match=r"budget of 10 queries does not suffice: 10 are spent, and 1 more"):
        ask(budgeted(10), IMAGES[:1] * 0.5)
    assert box.asked == 10
    with pytest.raises(UserError, match="queries=0 must be 1 or more"):
        budgeted(0)
    with pytest.raises(UserError, match="limits what a teacher behind a price is asked"):
        named_teacher("tiny_cnn", toy_data(), queries=3)


def test_a_failing_server_cannot_exceed_the_budget(box):
    box.faults = [500] * 9
    teacher = named_teacher(box.address, toy_data(), queries=25).answers
    with pytest.raises(UserError, match="budget of 25 queries does not suffice: 20 are spent"):
        ask(teacher)
    assert box.asked == 20


@pytest.mark.parametrize("value", ["Bearer s3cr3t-abc", "X-Api-Key: s3cr3t-abc"])
def test_the_secret_is_sent_and_stands_nowhere(box, value, monkeypatch, tmp_path):
    monkeypatch.setenv("BOX_KEY", value)
    teacher = RemoteTeacher(f"{box.address},auth=BOX_KEY,tries=1")
    box.faults = [500]
    with pytest.raises(UserError) as caught:
        ask(teacher)
    ask(teacher)
    sent = [headers.get("X-Api-Key") or headers.get("Authorization") for headers in box.headers_seen]
    assert set(sent) == {value.removeprefix("X-Api-Key: ")}
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    for text in (
        str(caught.value),
        repr(teacher),
        str(teacher.__dict__),
        teacher.known_by(),
        written.decode("latin-1"),
    ):
        assert "s3cr3t" not in text
    assert "***" in str(caught.value)
    monkeypatch.delenv("BOX_KEY")
    with pytest.raises(UserError, match="environment variable BOX_KEY, .* is not set"):
        ask(teacher, IMAGES * 0.5)


def test_what_the_metadata_say_is_held_against_the_data(box):
    def settled(**changes):
        box.metadata["inputs"][0] |= changes
        named_teacher(box.address, toy_data()).answers.settle(toy_data())

    settled(shape=[-1, 3, 12, 16])
    for changes, match in (
        ({"shape": [-1, 3, 32, 32]}, r"takes images of the shape \[3, 32, 32\], and those of toy are \[3, 12, 16\]"),
        ({"shape": [-1, 3072]}, "a batch of images has four axes"),
        ({"shape": [8, 3, 12, 16]}, "takes exactly 8 images at once"),
        ({"shape": [-1, 3, 12, 16], "datatype": "BYTES"}, "takes images as BYTES"),
    ):
        with pytest.raises(UserError, match=match):
            settled(**changes)
    settled(datatype="FP32")
    with pytest.raises(UserError, match="There is no input of .* named 'x'"):
        named_teacher(f"{box.address},input=x", toy_data()).answers.settle(toy_data())
    box.metadata["outputs"][0]["shape"] = [-1, 1000]
    teacher = named_teacher(box.address, toy_data()).answers
    teacher.settle(toy_data())
    with pytest.raises(UserError, match=r"shape \(1, 1000\).*--teacher-classes"):
        teacher.check_answers(toy_data())
    box.metadata = {"name": "box"}
    with pytest.raises(UserError, match="lack inputs and outputs"):
        named_teacher(box.address, toy_data()).answers.settle(toy_data())
    assert box.asked == 0


def test_a_kind_of_answer_that_was_wrong_costs_nothing_more(box):
    box.answer = lambda images: {"y": torch.from_numpy(images.mean((2, 3))).repeat(1, 2).softmax(1).numpy()}
    box.metadata["outputs"] = [{"name": "y", "datatype": "FP32", "shape": [-1, CLASSES]}]
    teacher = named_teacher(box.address, toy_data()).answers
    teacher.check_answers(toy_data())
    with pytest.raises(UserError, match="probabilities"):
        ask(teacher)
    found = ask(RemoteTeacher(f"{box.address},answers=probabilities"))
    assert torch.allclose(found.softmax(1), torch.from_numpy(box.answer(IMAGES.numpy())["y"]), atol=1e-6)
    assert box.asked == 10


def test_it_teaches_and_asks_about_each_image_once(box):
    # Without augmentation every epoch asks about the same.
    data = replace(toy_data(), augmentation=Augmentation())
    network = tutelage.distill("kd", student=ToyNetwork(4), teacher=box.address, data=data, **QUICK)
    assert all(parameter.isfinite().all() for parameter in network.parameters())
    with pytest.raises(UserError, match="gives only logits"):
        tutelage.distill("at", student=ToyNetwork(4), teacher=box.address, data=data, **QUICK)
    assert box.asked == SAMPLES


CLIENT = """
import sys, torch
from tutelage.core.teachers.remote import RemoteTeacher
from tutelage.data.augment import Augmentation
from tutelage.data.batch import Batch
images = torch.rand(40, 3, 4, 5, generator=torch.Generator().manual_seed(0))
print("ready", flush=True)
teacher = RemoteTeacher(sys.argv[1])
print(teacher(Batch(inputs=images)).logits.double().sum().item(), teacher.queries, flush=True)
"""


def test_a_client_that_is_killed_loses_nothing_and_asks_nothing_twice(box):
    answer = box.answer
    gate = threading.Event()

    def slow(images):
        # The eleventh question waits, so that the client dies while it is being answered.
        if len(box.sent) == 11:
            gate.set()
            time.sleep(1)
        return answer(images)

    box.answer = slow
    command = [sys.executable, "-c", CLIENT, f"{box.address},batch=2"]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ)
    assert gate.wait(60)
    client.send_signal(signal.SIGKILL)
    assert client.wait(10) == -signal.SIGKILL
    client.stdout.close()
    first = {images[row].tobytes() for images, _ in box.sent[:10] for row in range(2)}
    before = len(box.sent)
    images = torch.rand(40, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    teacher = RemoteTeacher(f"{box.address},batch=2")
    assert torch.equal(ask(teacher, images), torch.from_numpy(answer(images.numpy())["logits"]))
    # All ten answers that came are there; the question that was on its way is the only one asked again.
    again = [images[row].tobytes() for images, _ in box.sent[before:] for row in range(2)]
    assert not first & set(again)
    assert len(again) == teacher.queries == 20
    assert teacher.spent == 42


def test_it_can_be_copied_and_names_itself_alike(box):
    import copy
    import pickle

    teacher = RemoteTeacher(box.address)
    ask(teacher)
    for twin in (copy.deepcopy(teacher), pickle.loads(pickle.dumps(teacher))):
        assert torch.equal(ask(twin), ask(teacher))
        assert twin.identity() == teacher.identity()
    assert box.asked == 10
    assert json.dumps(teacher.known_by())
