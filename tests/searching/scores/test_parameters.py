import pytest
import torch

from tutelage.data.batch import Batch
from tutelage.models import load_network
from tutelage.searching.candidate import Candidate
from tutelage.searching.scoring import score_named


@pytest.mark.parametrize(
    ("name", "expected"),
    # By hand, part by part: the stem, the three stages with two projections, the classifier.
    [
        ("parameters", 116 + 608 + 944 + 3680 + 85),
        ("multiply-adds", 108 * 64 + 4 * 144 * 64 + (288 + 576 + 32) * 16 + (1152 + 2304 + 128) * 4 + 80),
        ("depth", 1 + 4 + 3 + 3 + 1),
    ],
)
def test_sizes_as_scores(name, expected):
    network = load_network("resnet_by_stage,width=4,stem=4,stage1=2,stage2=1,stage3=1", num_classes=5)
    score = score_named(name)
    assert score.total(score.terms(Candidate.of(network, Batch(inputs=torch.rand(2, 3, 8, 8))))) == expected
