"""What the second stage of discovery is made of."""

import math
from dataclasses import replace

import pytest
import torch

from tutelage.core.method import Progress
from tutelage.data.resolve import resolve_data
from tutelage.data.task import task_named
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.experiments.choice import Choice
from tutelage.methods.cr_kd import assignments, relation_loss
from tutelage.methods.parts.discovering import Clustering, Heads, Relation, Views
from tutelage.testing.kinds import KINDS
from tutelage.testing.toys import Recorder, met, toy_data

KIND = KINDS["discovery"]
SMALL = {"heads": 2, "hidden": 8, "width": 4}


@pytest.fixture(scope="module")
def methods():
    return {
        name: met(catalogue.get(name), KIND.experiment(), SMALL).methods["distill"].train() for name in ("cr-kd", "uno")
    }


def views(method):
    return next(iter(method.transfer_set(KIND.data().train).loader(KIND.data(), batch_size=12).epoch(0)))


def test_a_batch_has_both_kinds_in_two_views_of_different_strength(methods):
    method = methods["cr-kd"]
    batch = views(method)
    assert len(batch) == 24
    assert torch.equal(batch.indices[:12], batch.indices[12:])
    assert (batch.targets[:12] == -1).sum() == 4
    assert method.views == ("crop:1,flip", "crop:1,flip,colour:0.4")
    plain = KIND.data().train.images[batch.indices]
    # Random tones change colours; a crop and a flip only move them.
    kept = [len(set(view.flatten().tolist()) - set((image / 255).flatten().tolist()) - {0.0}) for view, image in
            zip(batch.inputs, plain, strict=True)]  # fmt: skip
    assert max(kept[:12]) == 0
    assert min(kept[12:]) > 0


def test_uno_is_cr_kd_without_the_relation(methods):
    batch = views(methods["uno"])
    plain, related = (next(methods[name].step(batch, Progress())).losses for name in ("uno", "cr-kd"))
    assert set(plain) == {"cluster"}
    assert set(related) == {"cluster", "relation"}
    assert torch.equal(plain["cluster"], related["cluster"])
    assert methods["cr-kd"].weights == {"relation": 0.1}


def test_the_losses_of_a_batch_are_put_together_as_published(methods):
    """Targets, swapping and the relation, head by head and view by view, from the networks' own cosines."""
    method = methods["cr-kd"].eval()
    batch = views(method)
    labels = batch.targets[:12]
    with torch.no_grad():
        found = next(method.step(batch, Progress())).losses
        embedding = method.student(batch.inputs).features[method._layer]
        known, novel = method.head.cosines(embedding)
        old = method.snapshot(batch).logits
    cluster, relations = [], []
    for head in novel:
        both = torch.cat([known, head], dim=1).view(2, 12, 6)
        for target, other in ((0, 1), (1, 0)):
            wanted = torch.zeros(12, 6)
            wanted[labels >= 0, labels[labels >= 0]] = 1.0
            wanted[labels < 0, 4:] = assignments(both[target][labels < 0, 4:])
            cluster.append(-(wanted * (both[other] / 0.1).log_softmax(1)).sum(1).mean())
        relations.append((old[(labels < 0).repeat(2)], both[:, labels < 0].flatten(0, 1) / 0.1))
    torch.testing.assert_close(found["cluster"], torch.stack(cluster).mean())
    whole = [torch.cat(parts) for parts in zip(*relations, strict=True)]
    torch.testing.assert_close(found["relation"], relation_loss(*whole, 4.0))
    method.train()


def test_prototypes_are_of_length_one_after_a_step_and_the_best_head_ships(methods):
    method = met(catalogue.get("cr-kd"), KIND.experiment(), SMALL).methods["distill"].train()
    steps = method.step(views(method), Progress(first_of_epoch=True))
    next(steps)
    with torch.no_grad():
        method.head.known.weight.mul_(3)
    list(steps)
    for weight in (method.head.known.weight, *(head.prototypes.weight for head in method.head.novel)):
        torch.testing.assert_close(weight.norm(dim=1), torch.ones(len(weight)))
    assert (method.head.losses > 0).all()
    method.head.losses.copy_(torch.tensor([2.0, 1.0]))
    assert method.head.best == 1
    shipped = method.export().eval()
    inputs = KIND.batch().inputs
    torch.testing.assert_close(shipped(inputs), method.eval()(inputs)["student"])
    assert len([module for module in shipped.modules() if type(module).__name__ == "NovelHead"]) == 1


def test_the_second_stage_starts_from_the_snapshot(methods):
    method = methods["cr-kd"]
    batch = KIND.batch()
    fresh = met(catalogue.get("cr-kd"), KIND.experiment(), SMALL).methods["distill"].eval()
    torch.testing.assert_close(fresh(batch.inputs)["student"][:, :4], fresh.snapshot(batch).logits)
    assert all(not parameter.requires_grad for parameter in method.snapshot.parameters())


def test_the_first_stage_sees_known_classes_alone():
    run = met(catalogue.get("cr-kd"), KIND.experiment(), SMALL)
    assert list(run.methods) == ["known", "distill"]
    assert run.data["known"].num_classes == 4
    assert run.data["known"].task is task_named("classification")
    assert run.data["distill"].num_classes == 6


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Relation(-1.0), "alpha=-1.0 must be zero or more"),
        (lambda: Relation(0.1, 0.0), "relation_temperature=0.0 above zero"),
        (lambda: Heads(0), "heads=0"),
        (lambda: Heads(1, -1), "hidden=-1"),
        (lambda: Clustering(epsilon=0.01), "epsilon=0.01 must be 0.0125 or more"),
        (lambda: Clustering(epsilon=math.nan), "epsilon=nan"),
        (lambda: Clustering(iterations=0), "iterations=0"),
        (lambda: Views(small_views=-1).of(toy_data()), "small_views=-1"),
        (lambda: Views(strong="blur").of(toy_data()), "blur"),
        (lambda: met(catalogue.get("cr-kd"), KIND.experiment(), {"temperature": 0.0}), "temperature=0.0"),
        (lambda: met(catalogue.get("cr-kd"), KIND.experiment(), {"known_epochs": -1}), "known_epochs=-1"),
    ],
)
def test_numbers_out_of_range_are_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_too_few_samples_are_told_before_the_first_stage():
    experiment = KIND.experiment()
    tiny = experiment.data.train.select(range(9))
    few = replace(experiment, data=experiment.data.with_splits(train=tiny))
    run = Recorder()
    run.training = replace(run.training, batch_size=2)
    with pytest.raises(UserError, match="7 labelled and 2 unlabelled samples cannot both be in each of 5 batches"):
        few.execute(Choice(catalogue.get("uno"), SMALL), run)
    assert not run.methods


def test_random_tones_are_refused_for_normalised_images():
    samples = [(torch.randn(3, 8, 8), number % 3 - 1) for number in range(12)]
    data = resolve_data(samples, task="discovery", novel=2)
    with pytest.raises(UserError, match="normalised already, and random tones are for images in"):
        Views().of(data)
    assert [str(view) for view in Views(strong="flip").of(data)] == ["none", "flip"]


def test_small_views_learn_and_give_no_targets():
    options = {**SMALL, "small_views": 1}
    method = met(catalogue.get("uno"), KIND.experiment(), options).methods["distill"].train()
    batch = views(method)
    assert len(batch) == 36
    assert torch.isfinite(next(method.step(batch, Progress())).losses["cluster"])
