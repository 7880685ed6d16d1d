"""The conformance suite: what is true of every method. Public, so that others can check their own methods.

`check_method("kd")` runs everything. A method that truly cannot meet a check is registered with
`exceptions={"name of the check": "why"}`, which the docs show.
"""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from tutelage.cli.flags import LearningDataOptions
from tutelage.cli.words import PRESETS
from tutelage.core.method import Method
from tutelage.core.registry import Entry
from tutelage.core.teachers import Teacher
from tutelage.data.batch import SUPERVISED
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.experiments.choice import Choice
from tutelage.experiments.serving import why_not
from tutelage.features.extractor import FeatureExtractor
from tutelage.features.padding import ATTENTION_MASK
from tutelage.models.answers import answer
from tutelage.system.chance import seed_everything
from tutelage.system.devices import threads
from tutelage.testing.kinds import KINDS, Kind, home
from tutelage.testing.other_teachers import accepts_other_teachers
from tutelage.testing.toys import methods_of
from tutelage.testing.trials import (
    STEPS,
    KilledError,
    assert_finite,
    assert_same,
    fit_stage,
    fresh_methods,
    gradients_of,
    make_confident,
    part_of,
    plain_loop,
    take_steps,
    updates_of,
)
from tutelage.training.checkpoint import student_state
from tutelage.training.settings import Training

Check = Callable[[Entry], None]

SETTINGS = frozenset(
    {"out", "seed"} | {setting.name for group in (LearningDataOptions, Training) for setting in fields(group)}
)
"""Settings of every run, whatever its method."""


def check_method(method: str) -> None:
    """Run every check on a method, on labelled images or the first data that it serves, and on every other kind.

    Args:
        method: Its registered name, or an import path `package.module:Class`.

    Raises:
        AssertionError: If a check fails, with its name.
    """
    entry = catalogue.get(method)
    for name, check in CHECKS.items():
        if name not in entry.exceptions:
            check(entry)
    for kind in KINDS.values():
        check_kind(entry, kind)


def check_kind(entry: Entry, kind: Kind) -> None:
    """Check that a method trains on a kind of data as it should, or refuses it with the reason that the docs show.

    Args:
        entry: The method.
        kind: The kind of data.

    Raises:
        AssertionError: If it does neither.
    """
    why = why_not(Choice(entry, {}), kind.offers)
    if why is not None:
        refuses(entry, kind, why)
        return
    for check in OF_A_KIND if not kind.brief else BRIEF:
        # Without targets, what lies behind the layers that are read has nothing to learn from.
        learns_all = check is not every_parameter_is_trained or "targets" in kind.offers
        if learns_all and check.__name__.replace("_", "-") not in entry.exceptions:
            check(entry, kind)


def refuses(entry: Entry, kind: Kind, why: str) -> None:
    """It is refused before it trains, in the words of the docs; in any words if the teacher has no classifier."""
    words = _refusal(entry, kind)
    assert words is not None, f"it trains on {kind.title}, and should not: {why}"
    # Without a classifier the refusal comes from wherever the logits are missed, in words of that place.
    assert why in words or kind.headless is not None, f"it is refused in other words: {words}"


def _refusal(entry: Entry, kind: Kind) -> str | None:
    """Return the words in which a method is refused; None if it is not refused."""
    try:
        # A refusal may come while the method is built, or at its first batch.
        for method in methods_of(entry, kind.experiment()).values():
            updates_of(method, kind.batch())
    except (UserError, ValueError) as error:
        return str(error)
    return None


def builds_from_defaults(entry: Entry, kind: Kind | None = None) -> None:
    """It builds from its defaults, and every method in it is final."""
    kind = kind or home(entry)
    for stage, method in fresh_methods(entry, kind).items():
        assert isinstance(method, Method), f"{stage} is no Method"
        assert Method in type(method).__bases__, f"{type(method).__name__} subclasses another method: wrap instead"


def options_are_its_own(entry: Entry) -> None:
    """No hyper-parameter has the name of a setting of every run, which a command would then give to both."""
    shared = sorted(SETTINGS & entry.hyper_parameters.keys())
    assert not shared, f"its {', '.join(shared)} would be taken for the setting of that name: choose another name"


def losses_are_finite_scalars(entry: Entry, kind: Kind | None = None) -> None:
    """Every loss is a finite scalar, and weights name losses that exist."""
    kind = kind or home(entry)
    for stage, method in fresh_methods(entry, kind).items():
        losses = {name: loss for update in updates_of(method, kind.batch()) for name, loss in update.losses.items()}
        for name, loss in losses.items():
            assert loss.ndim == 0, f"{stage}: the loss {name} has shape {tuple(loss.shape)}"
            assert torch.isfinite(loss), f"{stage}: the loss {name} is {loss.item()}"
        # Where there are no targets, their loss is left out, and its weight weighs nothing.
        absent = {SUPERVISED} if kind.batch().targets is None else set()
        missing = set(method.weights) - set(losses) - absent
        assert not missing, f"{stage}: weights without a loss, {missing}"


def teacher_stays_still(entry: Entry, kind: Kind | None = None) -> None:
    """The teacher's parameters and buffers do not change, and it is never in train mode."""
    kind = kind or home(entry)
    for stage, method in fresh_methods(entry, kind).items():
        teachers = [module for module in method.modules() if isinstance(module, Teacher)]
        before = [{key: value.clone() for key, value in teacher.state_dict().items()} for teacher in teachers]
        take_steps(method, kind.batch(), steps=3)
        for teacher, state in zip(teachers, before, strict=True):
            assert not any(module.training for module in teacher.modules()), f"{stage}: a teacher is in train mode"
            assert not any(p.grad is not None for p in teacher.parameters()), f"{stage}: a teacher has gradients"
            changed = [key for key, value in teacher.state_dict().items() if not torch.equal(value, state[key])]
            assert not changed, f"{stage}: the teacher's {changed} changed"


def every_parameter_is_trained(entry: Entry, kind: Kind | None = None) -> None:
    """Each trainable parameter is in an optimizer and moves; no frozen one is."""
    kind = kind or home(entry)
    for stage, method in fresh_methods(entry, kind).items():
        owned = {id(p) for spec in method.optimizers().values() for p in spec.params}
        before = {name: parameter.detach().clone() for name, parameter in method.named_parameters()}
        take_steps(method, kind.batch(), steps=3)
        for name, parameter in method.named_parameters():
            assert (id(parameter) in owned) == parameter.requires_grad, f"{stage}: {name} has the wrong optimizers"
            moved = not torch.equal(parameter, before[name])
            assert moved == parameter.requires_grad, f"{stage}: {name} {'moved' if moved else 'did not move'}"


def training_lowers_the_loss(entry: Entry, kind: Kind | None = None) -> None:
    """Twenty steps on one batch lower the weighted loss."""
    kind = kind or home(entry)
    for stage, method in fresh_methods(entry, kind).items():
        totals = take_steps(method, kind.batch(), steps=STEPS)
        assert totals[-1] < totals[0], f"{stage}: the loss went from {totals[0]:.4f} to {totals[-1]:.4f}"


def exports_what_it_predicts(entry: Entry, kind: Kind | None = None) -> None:
    """`export()` equals the first prediction, a member the one of its name; none holds adapter, teacher or hook."""
    kind = kind or home(entry)
    inputs = kind.batch().inputs
    for stage, method in fresh_methods(entry, kind).items():
        # After a step, so that an export of the initial weights would show.
        take_steps(method, kind.batch(), steps=1)
        method.eval()
        with torch.no_grad():
            predictions = method(inputs)
            networks = {next(iter(predictions)): method.export(), **method.members()}
            for name, network in networks.items():
                same = torch.equal(predictions[name], answer(network.eval(), inputs))
                assert same, f"{stage}: the exported {name} predicts something else"
        for name, network in networks.items():
            for path, module in network.named_modules():
                assert not isinstance(module, Method | Teacher | FeatureExtractor), f"{stage}: {path} was exported"
                assert not module._forward_hooks, f"{stage}: {name} keeps a hook at {path or 'its root'}"


def resumes_bit_identical(entry: Entry, kind: Kind | None = None) -> None:
    """A run that is killed in the middle of an epoch and resumed ends bit-identical to one that was not."""
    kind = kind or home(entry)
    for stage in fresh_methods(entry, kind):
        # Each run starts from the same fresh method, so that only the interruption differs.
        straight, _ = fit_stage(entry, stage, None, kind)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "checkpoint.pt"
            with suppress(KilledError):
                # In the second epoch, between two of its batches.
                fit_stage(entry, stage, file, kind, stop_at=5)
            resumed, saved = fit_stage(entry, stage, file, kind)
        assert saved, f"{stage}: no checkpoint was written"
        assert_same(straight, resumed, f"{stage}: resumed")


def driver_equals_a_plain_loop(entry: Entry, kind: Kind | None = None) -> None:
    """The driver gives the same weights as forty plain lines, bit for bit."""
    kind = kind or home(entry)
    for stage in fresh_methods(entry, kind):
        driven, _ = fit_stage(entry, stage, None, kind)
        method = fresh_methods(entry, kind)[stage]
        seed_everything(0)
        # A network this small is trained by one thread, and two add up in another order.
        with threads(1):
            plain_loop(method, kind.data())
        assert_same(driven, student_state(method), f"{stage}: the plain loop")


def survives_half_precision(entry: Entry) -> None:
    """Losses and gradients are finite under bf16 and fp16, with confident, equal, constant and zero inputs."""
    batch = home(entry).batch()
    # Equal samples have no variance, and black ones no norm, by which a careless loss would divide.
    constant = replace(batch, inputs=_filled(batch.inputs, 0.5))
    black = replace(batch, inputs=_filled(batch.inputs, 0.0))
    for dtype in (torch.bfloat16, torch.float16):
        for confident in (False, True):
            for hard in (batch, constant, black):
                for stage, method in fresh_methods(entry).items():
                    if confident:
                        make_confident(method, hard)
                    # Logits of 10,000 take weights through which fp16 gradients overflow in the network itself.
                    assert_finite(method, hard, dtype, stage, gradients=not (confident and dtype == torch.float16))


def _filled(inputs: Any, value: float) -> Any:
    """Return inputs that hold one value; of texts every token is the first word, and the padding stays."""
    if isinstance(inputs, Mapping):
        return {
            name: one if name == ATTENTION_MASK else torch.full_like(one, int(value)) for name, one in inputs.items()
        }
    return torch.full_like(inputs, value)


def same_seed_same_run(entry: Entry, kind: Kind | None = None) -> None:
    """The same seed gives the same run, and another seed another run."""
    kind = kind or home(entry)
    for stage in fresh_methods(entry, kind):
        first, _ = fit_stage(entry, stage, None, kind)
        second, _ = fit_stage(entry, stage, None, kind)
        assert_same(first, second, f"{stage}: repeated")
        other, _ = fit_stage(entry, stage, None, kind, seed=1)
        assert any(not torch.equal(first[key], other[key]) for key in first), f"{stage}: the seed changes nothing"


def parts_of_a_batch_add_up(entry: Entry, kind: Kind | None = None) -> None:
    """Two half batches' mean gradient is the whole batch's: apart from batch norm, two processes train as one."""
    kind = kind or home(entry)
    batch = kind.batch()
    halves = [part_of(batch, first, 2) for first in (0, 1)]
    for stage in fresh_methods(entry, kind):
        # Without batch norm, whose statistics over half a batch are others.
        whole = gradients_of(fresh_methods(entry, kind, batch_norm=False)[stage], batch)
        parts = [gradients_of(fresh_methods(entry, kind, batch_norm=False)[stage], half) for half in halves]
        for name, gradient in whole.items():
            mean = (parts[0][name] + parts[1][name]) / 2
            assert torch.allclose(mean, gradient, rtol=1e-4, atol=1e-6), (
                f"{stage}: {name} differs between 1 and 2 processes"
            )


def is_documented(entry: Entry) -> None:
    """It has a paper, an equation, its differences from paper and code, and a preset."""
    text = inspect.getdoc(entry.build) or ""
    assert entry.papers, "it cites no paper"
    assert re.search(r"\$\$.+\$\$", text, re.DOTALL), "its docstring has no equation"
    for section in ("Paper:", "Differences:"):
        assert section in text, f"its docstring has no section {section}"
    assert (PRESETS / f"{entry.name}.yaml").exists() or ":" in entry.name, "it has no preset"


CHECKS: Mapping[str, Check] = {
    check.__name__.replace("_", "-"): check
    for check in (
        builds_from_defaults,
        options_are_its_own,
        losses_are_finite_scalars,
        teacher_stays_still,
        every_parameter_is_trained,
        training_lowers_the_loss,
        exports_what_it_predicts,
        resumes_bit_identical,
        driver_equals_a_plain_loop,
        survives_half_precision,
        accepts_other_teachers,
        same_seed_same_run,
        parts_of_a_batch_add_up,
        is_documented,
    )
}

OF_A_KIND: Sequence[Callable[[Entry, Kind], None]] = (
    losses_are_finite_scalars,
    every_parameter_is_trained,
    training_lowers_the_loss,
    exports_what_it_predicts,
    parts_of_a_batch_add_up,
)
"""The checks that run for every kind of data; the others do not depend on the data."""

BRIEF: Sequence[Callable[[Entry, Kind], None]] = tuple(
    check for check in OF_A_KIND if check not in (every_parameter_is_trained, training_lowers_the_loss)
)
"""Those without the checks that take many steps."""
