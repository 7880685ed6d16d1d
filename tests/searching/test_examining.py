import gc
import math
import weakref

import pytest
import torch
from torch import nn

from tutelage.data.batch import Batch
from tutelage.models.normalization import Normalization
from tutelage.models.spec import NetworkSpec
from tutelage.searching import candidate as candidates
from tutelage.searching.examining import Examiner
from tutelage.searching.limits import Limits
from tutelage.searching.scores.depth import Depth
from tutelage.searching.scores.diswot import DisWOT
from tutelage.searching.scoring import Score

NETWORK = "resnet_by_stage,width=2,stem=2,stage1=1,stage2=1,stage3=1"
BATCH = Batch(inputs=torch.rand(4, 3, 8, 8), targets=torch.tensor([0, 1, 2, 0]))


def net(num_classes, *, width=3, broken=False):
    """Return a network of a user, which may fail on its first inputs."""
    if width > 5:
        raise ValueError("too wide")
    last = nn.Linear(7 if broken else width, num_classes)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)


class Sum(Score):
    """The sum of the weights: another number for each draw."""

    def __init__(self) -> None:
        super().__init__({"sum": 1.0})

    def terms(self, candidate):
        return {"sum": sum(float(weight.detach().sum()) for weight in candidate.network.parameters())}


class Endless(Sum):
    """No number at all."""

    def terms(self, candidate):
        return {"sum": math.inf}


def examiner(*scores, limit=None, seed=0):
    return Examiner(
        scores=scores or (Depth(),),
        batch=BATCH,
        limits=Limits.parse(limit),
        num_classes=3,
        in_channels=3,
        statistics=Normalization.named("cifar10"),
        seed=seed,
    )


def examine(network, *scores, **options):
    return examiner(*scores, **options).examine(NetworkSpec.parse(network))


def test_a_network_is_built_measured_and_scored():
    result = examine(NETWORK)
    assert (result.network, result.outcome, result.reason) == (NETWORK, "scored", "")
    assert (result.score, result.terms, result.value) == (10.0, {"layers": 10.0}, 10.0)
    assert result.parameters > 100
    assert result.multiply_adds is None
    assert (
        examine(NETWORK, limit="multiply_adds=1M").multiply_adds
        == examiner().multiply_adds(NetworkSpec.parse(NETWORK))
        > 1000
    )
    assert result.seconds > result.passes > 0


def test_what_is_over_the_limits_is_not_scored():
    result = examine(NETWORK, limit="params=10")
    assert (result.outcome, result.score, result.terms, result.value) == ("over the limits", None, {}, -math.inf)
    assert "parameters, over the limit" in result.reason
    assert result.parameters > 10


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (f"{__name__}:net,width=6", "too wide"),
        (f"{__name__}:net,depth=6", "cannot be built"),
        (f"{__name__}:net,broken=true", "cannot take the data's inputs: RuntimeError"),
        ("resnet20,depth=9", r"6n\+2"),
    ],
)
def test_what_does_not_build_is_told(network, reason):
    import re

    result = examine(network)
    assert (result.outcome, result.score, result.parameters) == ("not built", None, None)
    assert re.search(reason, result.reason)


def test_what_has_no_score_is_told():
    teacher = candidates.Candidate.of(net(3, width=4), BATCH)
    score = DisWOT(variant="code")
    score.learn(teacher)
    result = examine(f"{__name__}:net,width=3", score)
    assert (result.outcome, result.parameters) == ("not comparable", 96)
    assert "3 inputs and the teacher's has 4" in result.reason
    assert examine(NETWORK, Endless()).reason == "its score is not a finite number"


def test_the_mean_of_several_draws_counts():
    one, other = examine(NETWORK, Sum()).score, examine(NETWORK, Sum(), Sum()).score
    again = examine(NETWORK, Sum(), Sum()).score
    assert one != other == again
    assert examine(NETWORK, Sum(), seed=1).score != one


def test_a_network_is_gone_once_it_is_examined(monkeypatch):
    made = []
    original = candidates.Candidate.of.__func__

    def of(cls, network, batch):
        made.append(weakref.ref(network))
        return original(cls, network, batch)

    monkeypatch.setattr(candidates.Candidate, "of", classmethod(of))
    score = DisWOT(variant="paper")
    score.learn(candidates.Candidate.of(net(3, width=4), BATCH))
    run = examiner(score)
    run.examine(NetworkSpec.parse(NETWORK))
    gc.collect()
    made.clear()
    # Without the collector of circles, which would let many networks gather before it runs.
    gc.disable()
    try:
        for width in (2, 3, 4):
            assert run.examine(NetworkSpec.parse(f"resnet_by_stage,width={width},stage1=1")).score is not None
        assert [each() for each in made] == [None] * 3
    finally:
        gc.enable()


def test_the_random_numbers_of_the_caller_stay_where_they_were():
    before = torch.get_rng_state()
    examine(NETWORK)
    assert torch.equal(torch.get_rng_state(), before)
