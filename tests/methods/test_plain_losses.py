"""Each method names its loss as functions of tensors, which it calls itself, for people with a loop of their own."""

import ast
import importlib
import inspect
import typing
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tutelage
from tutelage.core.method import Method
from tutelage.core.teachers.virtual import virtual_logits
from tutelage.data import criterion
from tutelage.experiments import catalogue
from tutelage.losses import kd_loss
from tutelage.methods.confidence_penalty import negative_entropy
from tutelage.methods.dkd import dkd_losses
from tutelage.methods.dml import mutual_loss
from tutelage.methods.mlld import mlld_losses
from tutelage.methods.simkd import map_distance
from tutelage.methods.srrl import feature_matching, softmax_regression
from tutelage.methods.tf_kd_reg import virtual_loss

ENTRIES = list(catalogue.entries())
FUNCTIONS = {place: function for entry in ENTRIES for place, function in entry.functions.items()}
PLAIN = (Tensor, float, int, bool, str, type(None), torch.dtype)


def loaded(module):
    """Return the names that a module's code reads, its imports and definitions apart."""
    tree = ast.parse(Path(inspect.getsourcefile(module)).read_text())
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def is_plain(kind):
    """Return whether a type is a tensor or a number, or made of such."""
    origin, inside = typing.get_origin(kind), [one for one in typing.get_args(kind) if one is not ...]
    if origin is typing.Literal or kind in PLAIN:
        return True
    if origin is not None and getattr(origin, "__name__", "") == "Callable":
        return True
    return bool(inside) and all(map(is_plain, inside))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_method_names_its_loss(entry):
    wraps = "distill" in entry.fixtures
    assert bool(entry.losses) is not wraps
    page = (Path(__file__).parents[2] / "docs" / "methods" / f"{entry.name}.md").read_text()
    for place in entry.functions:
        module, _, name = place.rpartition(".")
        assert module in ("tutelage.losses", entry.build.__module__)
        assert f"from {module} import {name}" in page


@pytest.mark.parametrize("place", FUNCTIONS)
def test_it_is_a_documented_function_of_tensors(place):
    function = FUNCTIONS[place]
    assert inspect.isfunction(function)
    signature = inspect.signature(function, eval_str=True)
    odd = {name: one.annotation for name, one in signature.parameters.items() if not is_plain(one.annotation)}
    assert not odd
    assert is_plain(signature.return_annotation)
    text = inspect.getdoc(function)
    assert "Args:" in text
    assert all(f"    {name}: " in text for name in signature.parameters)


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.losses], ids=lambda entry: entry.name)
def test_the_method_itself_calls_it(entry):
    own = importlib.import_module(entry.build.__module__)
    # Methods that it runs, such as the rounds of a recipe.
    others = {value.__module__ for value in vars(own).values() if inspect.isclass(value) and issubclass(value, Method)}
    beside = loaded(criterion).union(*(loaded(importlib.import_module(name)) for name in others))
    for place in entry.functions:
        module, _, name = place.rpartition(".")
        # What is shared may be called by the task's criterion, or by a method that this one runs.
        assert name in loaded(own) | (beside if module == "tutelage.losses" else set()) or name == "virtual_logits"


def logits(rows=6, classes=5, seed=0):
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_two_parts_of_dkd_add_up_to_kd_sample_by_sample():
    student, teacher, labels = logits(), logits(seed=1), torch.tensor([0, 1, 2, 3, 4, -1])
    parts = [dkd_losses(student[i : i + 1], teacher[i : i + 1], labels[i : i + 1], 3.0) for i in range(5)]
    for number, (target, others) in enumerate(parts):
        sure = 1 - (teacher[number] / 3).softmax(0)[labels[number]]
        whole = kd_loss(student[number : number + 1], teacher[number : number + 1], 3.0)
        torch.testing.assert_close(target + sure * others, whole)
    # A sample without a label does not count.
    together = dkd_losses(student, teacher, labels, 3.0)
    torch.testing.assert_close(torch.stack(together), torch.tensor(parts, dtype=torch.float64).mean(0))


def test_peers_are_averaged_summed_or_mixed():
    own, peers = logits(), [logits(seed=1), logits(seed=2)]
    each = torch.stack([kd_loss(own, one, 2.0) for one in peers])
    torch.testing.assert_close(mutual_loss(own, peers, 2.0), each.mean())
    torch.testing.assert_close(mutual_loss(own, peers, 2.0, peer="sum"), each.sum())
    mixed = torch.stack([(one / 2).softmax(1) for one in peers]).mean(0)
    slow = 4 * (mixed * (mixed.log() - (own / 2).log_softmax(1))).sum(1).mean()
    torch.testing.assert_close(mutual_loss(own, peers, 2.0, peer="mean-probability"), slow)


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_the_virtual_teacher_is_two_functions(variant):
    student, labels = logits(), torch.tensor([0, 1, 2, 3, 4, -1])
    softening = "log-probability" if variant == "paper" else "probability"
    virtual = virtual_logits(labels, 5, confidence=0.9, softening=softening, dtype=torch.float64)
    found = virtual_loss(student, virtual, labels, 2.0, variant=variant)
    slow = 0.0
    for row, label in zip(student[:5], labels[:5], strict=True):
        given = torch.full((5,), 0.025, dtype=torch.float64)
        given[label] = 0.9
        target = (given.log() / 2).softmax(0) if variant == "paper" else (given / 2).softmax(0)
        answer = (row / 2).log_softmax(0) if variant == "paper" else row.log_softmax(0)
        term = (target * (target.log() - answer)).sum() * (4 if variant == "paper" else 1 / 5)
        slow += term / 5
    torch.testing.assert_close(found, slow)


def test_maps_and_embeddings_are_compared_directly():
    ours, theirs = torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 2, 2)
    assert map_distance(3 * ours, theirs).item() == 9.0
    weight = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    embedding, target = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 0.0]])
    assert feature_matching(embedding, target).item() == 1.0
    assert softmax_regression(embedding, target, weight).item() == (1 + 4) / 2


def test_agreement_costs_nothing_and_doubt_is_rewarded():
    assert negative_entropy(torch.zeros(3, 4)).item() == pytest.approx(-torch.log(torch.tensor(4.0)).item())
    same, strong = logits().float(), logits(seed=1).float()
    for variant in ("paper", "code"):
        for value in mlld_losses(same, same, strong, strong, variant=variant).values():
            assert value.item() == pytest.approx(0, abs=1e-5)


def test_a_loop_of_ones_own_trains_with_it():
    torch.manual_seed(0)
    student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    inputs, labels = torch.randn(12, 4), torch.arange(12) % 3
    optimizer, found = torch.optim.SGD(student.parameters(), lr=0.5), []
    for _ in range(30):
        target, others = dkd_losses(student(inputs), teacher(inputs), labels, 2.0)
        optimizer.zero_grad()
        (target + 2 * others).backward()
        optimizer.step()
        found.append((target + 2 * others).item())
    assert found[-1] < found[0] / 5
    assert tutelage.losses.kd_loss(student(inputs), teacher(inputs)).item() < 0.1
