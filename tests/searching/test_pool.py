import os

import pytest
import torch

from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.models.spec import NetworkSpec
from tutelage.searching.candidate import Candidate
from tutelage.searching.examining import Examiner
from tutelage.searching.limits import Limits
from tutelage.searching.pool import examining
from tutelage.searching.scores.diswot import DisWOT


def fatal(num_classes, *, width=1):
    """End the process that builds this, as one does for which no memory is left."""
    os._exit(1)


@pytest.fixture(scope="module")
def examiner():
    batch = Batch(inputs=torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    score = DisWOT(variant="paper")
    torch.manual_seed(0)
    from tutelage.models import load_network

    score.learn(Candidate.of(load_network("resnet_by_stage,width=8", num_classes=3), batch))
    return Examiner(
        scores=(score,), batch=batch, limits=Limits(), num_classes=3, in_channels=3, statistics=None, seed=0
    )


def test_another_process_gives_the_same_bits_in_the_same_order_and_its_end_is_told(examiner):
    networks = [NetworkSpec.parse(f"resnet_by_stage,width={width},stage1=1") for width in (12, 2, 7)]
    with examining(examiner, 0) as examine:
        here = list(examine(networks))
    # One pool for both checks, because starting a process takes seconds.
    with examining(examiner, 1) as examine:
        there = list(examine(networks))
        with pytest.raises(UserError, match="has ended.*Give fewer --workers than 1"):
            list(examine([NetworkSpec.parse(f"{__file__}:fatal,width=2")]))
    assert [(one.network, one.score, one.terms) for one in here] == [
        (one.network, one.score, one.terms) for one in there
    ]
    assert len({one.score for one in here}) == 3


def test_candidates_are_computed_by_one_thread_here_too(examiner, monkeypatch):
    seen = []
    monkeypatch.setattr(Examiner, "examine", lambda self, network: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with examining(examiner, 0) as examine:
            list(examine([NetworkSpec.parse("tiny_cnn")]))
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)
