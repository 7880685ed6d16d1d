"""What one call does, with a Python user's own objects."""

import json
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

import tutelage
from tutelage.core.teachers import UniformTeacher
from tutelage.data.resolve import resolve_data
from tutelage.errors import UserError
from tutelage.models.normalization import Normalized
from tutelage.system.chance import seed_everything
from tutelage.testing.toys import CLASSES, ToyNetwork, toy_data

QUICK = {"epochs": 1, "batch_size": 16, "precision": "32-true", "progress": False}


def test_a_module_is_copied_trained_and_returned_bare_in_eval_mode(student, teacher, pairs):
    before = [parameter.detach().clone() for parameter in student.parameters()]
    trained = tutelage.distill("kd", student=student, teacher=teacher, data=pairs, **QUICK)
    assert type(trained) is ToyNetwork
    assert not any(module.training for module in trained.modules())
    assert all(torch.equal(one, other) for one, other in zip(before, student.parameters())), "a copy is trained"
    assert not all(torch.equal(one, other) for one, other in zip(before, trained.parameters()))
    assert all(parameter.requires_grad for parameter in teacher.parameters()), "a copy teaches"
    assert not any(module._forward_hooks for module in trained.modules())


def test_a_map_style_dataset_a_loader_and_ready_made_data_are_taken(student, pairs):
    for data in (pairs, DataLoader(pairs, batch_size=16), toy_data()):
        trained = tutelage.distill("supervised", student=student, data=data, **QUICK)
        assert trained(torch.rand(2, 3, 12, 16)).shape == (2, CLASSES)


def test_validation_and_test_data_of_ones_own_are_reported(student, pairs, tmp_path):
    tutelage.distill("supervised", student=student, data=pairs, validation=pairs, test=pairs, out=tmp_path, **QUICK)
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert (content["data"]["validation"], content["data"]["test"]) == (96, 96)
    assert "test_accuracy" in content["rows"][0]["runs"][0]["best"]


def test_a_share_for_validation_is_held_out_and_one_that_is_none_is_refused(pairs):
    assert resolve_data(pairs, validation=0.25).count("validation") == 24
    assert resolve_data("digits", validation=0.5, subset=100).count("validation") == 50
    assert resolve_data("digits", validation=0, subset=100).validation is None
    for share in (2, -0.1, 1, float("nan")):
        for data in ("digits", pairs):
            with pytest.raises(UserError, match="validation is"):
                resolve_data(data, validation=share)


def test_splits_beside_data_that_bring_their_own_are_refused_rather_than_ignored(pairs):
    for data in ("digits", toy_data()):
        for given in ({"validation": pairs}, {"test": pairs}):
            with pytest.raises(UserError, match="data given by name have splits of their own"):
                resolve_data(data, **given)
    for data in (DataLoader(pairs), toy_data()):
        with pytest.raises(UserError, match="held out"):
            resolve_data(data, validation=0.2)


def test_a_factory_makes_networks_afresh(pairs):
    made = []

    def factory():
        made.append(ToyNetwork(4))
        return made[-1]

    options = {"student": factory, "data": pairs, **QUICK}
    one, other = (tutelage.distill("supervised", seed=seed, **options) for seed in (0, 0))
    assert len(made) > 2
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))
    different = tutelage.distill("supervised", seed=1, **options)
    assert not torch.equal(one.classifier.weight, different.classifier.weight)


def test_a_name_gets_its_own_normalisation():
    trained = tutelage.distill("supervised", student="tiny_cnn,width=3", data=toy_data(), **QUICK)
    assert isinstance(trained, Normalized)


def test_the_folder_holds_weights_that_load_strictly_and_a_report(student, pairs, tmp_path):
    trained = tutelage.distill("supervised", student=student, data=pairs, out=tmp_path, **QUICK)
    loaded = ToyNetwork(4).eval()
    loaded.load_state_dict(load_file(tmp_path / "student.safetensors"), strict=True)
    inputs = torch.rand(3, 3, 12, 16)
    assert torch.equal(loaded(inputs), trained(inputs))
    assert (tmp_path / "report.html").exists()


def test_the_same_call_returns_what_is_there(student, pairs, tmp_path):
    call = {"student": student, "data": pairs, "out": tmp_path, **QUICK}
    one = tutelage.distill("supervised", **call)
    file = next((tmp_path / "runs").rglob("student.safetensors"))
    written = file.stat().st_mtime_ns
    other = tutelage.distill("supervised", **call)
    assert file.stat().st_mtime_ns == written
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))


def test_a_teacher_object_teaches(student, pairs):
    trained = tutelage.distill("kd", student=student, teacher=UniformTeacher(CLASSES), data=pairs, **QUICK)
    assert type(trained) is ToyNetwork


def draw():
    return torch.rand(1).item(), random.random(), np.random.rand()


@pytest.mark.parametrize("call", ["distill", "distill_all", "compare", "evaluate", "record", "failing"])
def test_what_the_caller_draws_does_not_depend_on_the_call(call, student, teacher, pairs, tmp_path):
    def work():
        if call in ("distill", "distill_all"):
            getattr(tutelage, call)("kd", student=student, teacher=teacher, data=pairs, **QUICK)
        elif call == "compare":
            tutelage.compare(["supervised"], student=student, data=pairs, seeds=1, out=tmp_path, **QUICK)
        elif call == "evaluate":
            tutelage.evaluate(student, data=pairs)
        elif call == "record":
            tutelage.record(teacher, data=pairs, out=tmp_path, views=1, progress=False)
        else:
            with pytest.raises(UserError):
                tutelage.distill("at", student=student, teacher=UniformTeacher(CLASSES), data=pairs, **QUICK)

    seed_everything(5)
    expected = [draw(), draw()]
    seed_everything(5)
    first = draw()
    work()
    assert [first, draw()] == expected


def test_a_failure_is_raised_rather_than_reported(student, pairs):
    with pytest.raises(UserError, match="became infinite or NaN"):
        tutelage.distill("tf-kd-reg", student=student, data=pairs, variant="code", multiplier=1e39, **QUICK)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"temprature": 3.0}, "Did you mean 'temperature'"),
        ({"epoch": 3}, "Did you mean 'epochs'"),
        ({"alpha": 3.0}, "alpha=3.0 must be between 0 and 1"),
        ({"alpha": "much"}, "does not fit"),
    ],
)
def test_a_setting_that_does_not_fit_names_itself(settings, expected, student, pairs):
    with pytest.raises(UserError, match=expected):
        tutelage.distill("tf-kd-reg", student=student, data=pairs, **QUICK | settings)


def test_compare_returns_the_table_and_writes_it(student, teacher, pairs, tmp_path):
    rows = ["supervised", "kd:temperature=2"]
    content = tutelage.compare(rows, student=student, teacher=teacher, data=pairs, seeds=2, out=tmp_path, **QUICK)
    assert [row["label"] for row in content["rows"]] == ["supervised", "kd:temperature=2.0"]
    assert content["rows"][1]["baseline"] == "supervised"
    assert json.loads((tmp_path / "comparison.json").read_text())["rows"][1]["runs"][1]["seed"] == 1
    assert (tmp_path / "report.html").exists()


def test_foreign_data_are_another_piece_of_work_but_for_the_teacher(pairs, tmp_path):
    settings = {"student": "tiny_cnn,width=2", "teacher": "tiny_cnn,width=2", "data": "digits", "epochs": 1}
    for foreign in (None, pairs, None):
        tutelage.compare(["kd"], **settings, foreign=foreign, seeds=1, out=tmp_path, progress=False)
    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert len(list(tmp_path.glob("teacher-*"))) == 1


def test_every_network_of_a_family_comes_back_and_is_kept(pairs, tmp_path):
    first, second = ToyNetwork(4), ToyNetwork(6)
    settings = {"data": pairs, "test": pairs, "epochs": 1, "progress": False, "out": tmp_path}
    networks = tutelage.distill_all("dml", student=[first, second], **settings)
    assert list(networks) == ["student", "student-2"]
    assert all(type(network) is ToyNetwork and not network.training for network in networks.values())
    kept = ToyNetwork(6)
    tutelage.load_weights(kept, tmp_path / "members" / "student-2" / "student.safetensors")
    assert all(
        torch.equal(a, b) for a, b in zip(kept.state_dict().values(), networks["student-2"].state_dict().values())
    )
    again = tutelage.distill("dml", student=[first, second], **settings)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), networks["student"].parameters()))


def test_members_of_an_earlier_run_do_not_stay_beside_another_network(pairs, tmp_path):
    settings = {"data": pairs, "epochs": 1, "progress": False, "out": tmp_path}
    tutelage.distill("dml", student=[ToyNetwork(4), ToyNetwork(6)], **settings)
    assert (tmp_path / "members" / "student-2").is_dir()
    tutelage.distill("supervised", student=ToyNetwork(4), **settings)
    assert not (tmp_path / "members").exists()


def test_networks_by_name_keep_their_normalisation_each_its_own():
    pair = ["tiny_cnn,width=2,normalize=0.5:0.25", "tiny_cnn,width=2,normalize=none"]
    networks = tutelage.distill_all("dml", student=pair, data="digits", epochs=1, progress=False)
    assert [network.normalization.std for network in networks.values()] == [(0.25,), (1.0,)]


def test_a_wrapper_takes_its_method_by_name(student, teacher, pairs, tmp_path):
    options = {"method": "(kd:alpha=0.5,temperature=2)", "std": 0.2, "out": tmp_path}
    tutelage.distill("soft-randomization", student=student, teacher=teacher, data=pairs, **options, **QUICK)
    (row,) = json.loads((tmp_path / "comparison.json").read_text())["rows"]
    assert row["options"] == {"std": 0.2, "method": "kd:alpha=0.5,temperature=2.0", "clip": False}
