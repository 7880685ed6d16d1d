"""Every method trains as it should on every kind of data, or refuses it in the words of the docs."""

import math
from dataclasses import replace

import pytest
import torch

from tutelage.core.registry import Entry
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.experiments.choice import Choice
from tutelage.experiments.serving import why_not
from tutelage.losses import cross_entropy
from tutelage.methods.end import EnD
from tutelage.methods.kd import KD
from tutelage.models.answers import answer
from tutelage.testing.conformance import check_kind, driver_equals_a_plain_loop, refuses, resumes_bit_identical
from tutelage.testing.kinds import KINDS
from tutelage.testing.toys import methods_of
from tutelage.testing.trials import STEPS, take_steps

OTHERS = [name for name in KINDS if name != "labels"]
# Who trains on these is known by name, so that a method that begins to refuse them is noticed.
SERVED = {
    "multi-label": {"kd", "re-kd", "de-kd", "tf-kd-self", "born-again", "dml", "fitnet", "at", "sp", "vid", "semckd"},
    "regression": {"kd", "re-kd", "de-kd", "tf-kd-self", "born-again", "dml", "fitnet", "at", "sp", "vid", "semckd"},
    "maps": {"kd", "dkd", "label-smoothing", "confidence-penalty", "tf-kd-reg", "tf-kd-self", "dml", "end", "endd"},
    "depth": {"kd", "re-kd", "tf-kd-self", "dml", "fitnet", "at", "sp", "vid", "cwd", "structured", "afd"},
    "text": {"kd", "dkd", "label-smoothing", "crd", "cs-kd", "byot", "msd", "ksanc", "simkd", "srrl", "end"},
    "language": {"token-kd", "kd", "re-kd", "de-kd", "tf-kd-self", "born-again", "dml", "fitnet", "at", "sp", "vid"},
    "unlabelled": {"kd", "fkd", "unix", "mlld", "end", "endd", "simkd", "srrl", "at", "fitnet", "quest"},
    "discovery": {"cr-kd", "uno", "kmeans", "supervised"},
    "headless": {"at", "sp", "vid", "fitnet", "quest"},
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("method", catalogue.names())
def test_kind(method, kind):
    check_kind(catalogue.get(method), KINDS[kind])


@pytest.mark.parametrize("kind", OTHERS)
def test_who_serves_a_kind(kind):
    served = {
        name for name in catalogue.names() if why_not(Choice(catalogue.get(name), {}), KINDS[kind].offers) is None
    }
    assert served >= SERVED[kind]
    assert served < set(catalogue.names())


@pytest.mark.parametrize(
    ("method", "kind"),
    [("kd", kind) for kind in OTHERS if kind not in ("headless", "depth", "discovery")]
    + [("at", "headless"), ("dml", "multi-label")],
)
def test_a_run_on_a_kind_is_a_plain_loop_and_goes_on_after_a_kill(method, kind):
    driver_equals_a_plain_loop(catalogue.get(method), KINDS[kind])
    resumes_bit_identical(catalogue.get(method), KINDS[kind])


@pytest.mark.parametrize("kind", OTHERS)
def test_the_toys_are_what_they_are_called(kind):
    batch = KINDS[kind].batch()
    student = KINDS[kind].experiment().students[0].build(0, "student")
    reply = answer(student, batch.inputs)
    shapes = {"multi-label": (12, 6), "regression": (12, 3), "maps": (12, 12, 16), "depth": (12, 12, 16), "text": (12,)}
    shapes |= {"language": (12, 7), "discovery": (12,)}
    if batch.targets is None:
        assert kind in ("unlabelled", "headless")
        return
    assert batch.targets.shape == shapes[kind]
    assert torch.isfinite(batch.loss(reply))
    if kind == "maps":
        assert ((batch.targets == -1).sum((1, 2)) == 20).all()
    if kind == "depth":
        assert ((batch.targets == 0).sum((1, 2)) == 20).all()
        assert (batch.targets >= 0).all()
    if kind in ("text", "language"):
        assert (batch.inputs["attention_mask"] == 0).any()


# Options that make a method read more, or less.
OPTIONS = [
    ("maps", "kd", {"standardize": True}),
    ("maps", "fkd", {"cutmix": 1.0}),
    ("maps", "unix", {"ce_weight": 0.5}),
    ("maps", "born-again", {"variant": "cwtm"}),
    ("maps", "born-again", {"variant": "dkpp"}),
    ("maps", "tf-kd-reg", {"variant": "code"}),
    ("depth", "cwd", {"on": "logits"}),
    ("text", "dml", {"peer": "mean-probability"}),
    ("text", "crd", {"alpha": 1.0}),
    ("text", "afd", {"adversarial": False}),
    ("multi-label", "fitnet", {"variant": "paper"}),
    ("unlabelled", "mlld", {"ce_weight": 0.0}),
    ("headless", "semckd", {"alpha": 0.0}),
]


@pytest.mark.parametrize(("kind", "method", "options"), OPTIONS, ids=lambda value: getattr(value, "name", None))
def test_options_that_change_what_is_read(kind, method, options):
    toy, choice = KINDS[kind], Choice(catalogue.get(method), options)
    assert why_not(choice, toy.offers) is None
    for stage in methods_of(choice.entry, toy.experiment(), options).values():
        totals = take_steps(stage, toy.batch(), steps=STEPS)
        assert all(map(math.isfinite, totals))
        assert min(totals[-3:]) < totals[0]


@pytest.mark.parametrize(
    ("kind", "method", "options"),
    [
        ("multi-label", "kd", {"standardize": True}),
        ("multi-label", "kd", {"reduction": "mean"}),
        ("regression", "dml", {"peer": "mean-probability"}),
        ("multi-label", "born-again", {"variant": "dkpp"}),
        ("unlabelled", "unix", {"ce_weight": 0.5}),
        ("depth", "structured", {"pixel_weight": 1.0}),
    ],
)
def test_options_that_the_data_cannot_serve_are_refused(kind, method, options):
    toy, entry = KINDS[kind], catalogue.get(method)
    assert why_not(Choice(entry, {}), toy.offers) is None
    with pytest.raises(UserError, match=r"Its options ask for that: the defaults do not"):
        methods_of(entry, toy.experiment(), options)


# The checks can fail.


class Careless(KD):
    """Takes whatever there is for classes."""

    def losses(self, batch):
        student, teacher = self.student(batch.inputs).logits, self.teacher(batch).logits
        return {"ce": cross_entropy(student, batch.targets.argmax(1)), "kd": (student - teacher).square().mean()}


def entry(build, reads=(), **facts):
    return Entry(name="mine", build=build, papers=(), reads=frozenset(reads), **facts)


def test_a_method_that_is_refused_for_nothing_is_found():
    with pytest.raises(AssertionError, match="it trains on .* and should not"):
        refuses(entry(KD, uses=frozenset({"targets"})), KINDS["multi-label"], "it needs classes")


def test_a_method_that_claims_too_much_is_found():
    with pytest.raises(AssertionError, match="differs between 1 and 2 processes"):
        check_kind(entry(ByThePlaces), KINDS["maps"])
    with pytest.raises(Exception, match=r"needs labels|\btargets\b|NoneType"):
        check_kind(entry(Careless), KINDS["unlabelled"])


class ByThePlaces(EnD):
    """Divides by the square of the batch."""

    def losses(self, batch):
        student = self.student(batch.inputs).logits
        return {"end": (student - self.teacher(batch).logits).square().sum() / len(student) ** 2}

    def step(self, batch, progress):
        yield from super(EnD, self).step(batch, progress)


def test_labels_that_are_absent_unevenly_would_not_add_up():
    """So the toys' even ones are needed: of several processes each takes the mean over its own labelled places."""
    kind = KINDS["maps"]
    batch = kind.batch()
    labels = batch.targets.clone()
    labels[::2, 2:] = -1
    uneven = replace(batch, targets=labels)
    student = kind.experiment().students[0].build(0, "student").eval()
    halves = [replace(uneven, inputs=uneven.inputs[r::2], targets=uneven.targets[r::2]) for r in (0, 1)]
    parts = [half.loss(student(half.inputs)) for half in halves]
    assert not torch.allclose((parts[0] + parts[1]) / 2, uneven.loss(student(uneven.inputs)), rtol=1e-5)
