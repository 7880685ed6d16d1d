import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.models import load_network
from tutelage.searching.candidate import Candidate, Reading, by_batch
from tutelage.searching.scores.diswot import (
    DisWOT,
    class_similarity,
    classifier_gradient,
    gradient_distance,
    sample_similarity,
)

CLASSES, BATCH = 5, 6


def candidate(spec="resnet_by_stage,width=4,stage1=1,stage2=1,stage3=1", seed=0, images=None):
    torch.manual_seed(seed)
    network = load_network(spec, num_classes=CLASSES)
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(BATCH, 3, 8, 8, generator=generator) if images is None else images
    return Candidate.of(network, Batch(inputs=images, targets=torch.tensor([0, 1, 1, 2, 4, 0])))


@pytest.fixture(scope="module")
def teacher():
    return candidate("resnet_by_stage,width=4,stage1=2,stage2=1,stage3=1", seed=1)


@pytest.fixture(scope="module")
def student():
    return candidate()


def slow_similarity(rows):
    """Return products of rows, each row of the result of length 1, by loops."""
    result = [[sum(a * b for a, b in zip(one, other)) for other in rows] for one in rows]
    return [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in result]


def slow_distance(one, other):
    return sum((a - b) ** 2 for row, twin in zip(one, other) for a, b in zip(row, twin))


def slow_relation(reading):
    return slow_similarity([image.flatten().tolist() for image in reading.maps.double()])


def slow_classes(reading):
    maps, weight = reading.maps.double(), reading.weight.double()
    rows = []
    for k in range(CLASSES):
        activation = [sum(weight[k, c] * maps[b, c] for c in range(maps.shape[1])) for b in range(BATCH)]
        rows.append(torch.stack(activation).flatten().tolist())
    return slow_similarity(rows)


def slow_gradient(shown):
    """Return the gradient of the cross-entropy for the classifier's weights, by autograd."""
    network = shown.network
    with by_batch(network), torch.enable_grad():
        loss = F.cross_entropy(network(shown.batch.inputs), shown.batch.targets)
    return torch.autograd.grad(loss, network.model.classifier.weight)[0].double()


def slow_gradient_distance(one, other):
    total = 0.0
    for k in range(one.shape[0]):
        grams = []
        for gradient in (one[k], other[k]):
            rows = [[float(a * b) for b in gradient] for a in gradient]
            lengths = [math.sqrt(sum(v * v for v in row)) for row in rows]
            grams.append([[v / length if length else 0.0 for v in row] for row, length in zip(rows, lengths)])
        total += slow_distance(*grams)
    return total / one.numel()


def test_the_papers_form_is_that_of_slow_loops(teacher, student):
    score = DisWOT(variant="paper")
    score.learn(teacher)
    terms = score.terms(student)
    one, other = teacher.reading, student.reading
    semantic = -math.sqrt(slow_distance(slow_classes(one), slow_classes(other)))
    relation = -math.sqrt(slow_distance(slow_relation(one), slow_relation(other)))
    assert terms == pytest.approx({"semantic": semantic, "relation": relation}, rel=1e-9)
    assert score.total(terms) == pytest.approx(semantic + relation)
    assert semantic < -0.01
    assert relation < -0.01


def test_the_codes_form_is_that_of_slow_loops(teacher, student):
    score = DisWOT(variant="code")
    score.learn(teacher)
    terms = score.terms(student)
    semantic = -slow_gradient_distance(slow_gradient(teacher), slow_gradient(student))
    relation = -slow_distance(slow_relation(teacher.reading), slow_relation(student.reading)) / BATCH**2
    assert terms == pytest.approx({"semantic": semantic, "relation": relation}, rel=1e-4)
    assert semantic < -0.1


def test_the_gradient_is_that_of_autograd(student):
    found = classifier_gradient(student.reading, student.batch.targets)
    assert torch.allclose(found, slow_gradient(student), rtol=1e-4, atol=1e-7)


def test_samples_of_unknown_class_have_no_gradient(student):
    reading, labels = student.reading, student.batch.targets.clone()
    labels[3:] = -1
    some = Reading(reading.logits[:3], reading.embedding[:3], reading.maps[:3], reading.weight)
    assert torch.allclose(classifier_gradient(reading, labels), classifier_gradient(some, labels[:3]))


def test_the_distance_of_gradients_has_the_closed_form():
    one, other = torch.randn(2, 4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = float(gradient_distance(one, other))
    cosines, signs = F.cosine_similarity(one, other), (one.sign() * other.sign()).mean(1)
    assert found == pytest.approx(2 - 2 * float((cosines * signs).mean()), abs=1e-15)
    assert found == pytest.approx(slow_gradient_distance(one, other), abs=1e-12)
    # Neither the length nor the sign of a gradient counts.
    assert float(gradient_distance(3 * one, -other)) == pytest.approx(found, abs=1e-14)


def test_inputs_without_gradient_count_as_rows_of_zeros():
    one, other = torch.randn(2, 4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one[1], one[2, 3:], other[3, :2] = 0, 0, 0
    assert float(gradient_distance(one, other)) == pytest.approx(slow_gradient_distance(one, other), abs=1e-12)


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_a_copy_of_the_teacher_has_the_best_score(teacher, variant):
    score = DisWOT(variant=variant)
    score.learn(teacher)
    assert list(score.terms(teacher).values()) == pytest.approx([0, 0], abs=1e-12)


def test_relations_do_not_see_scale_rotation_or_the_order_of_the_batch():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, BATCH, 3, 2, 2, dtype=torch.float64, generator=generator)
    rotation = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64, generator=generator)).Q
    order = torch.randperm(BATCH, generator=generator)

    def distance(a, b):
        return float((sample_similarity(a) - sample_similarity(b)).norm())

    found = distance(one, other)
    assert distance(one, 3 * one) == pytest.approx(0, abs=1e-12)
    rotated = (other.flatten(1) @ rotation).reshape(other.shape)
    assert distance(one, rotated) == pytest.approx(found, abs=1e-12)
    assert distance(one[order], other[order]) == pytest.approx(found, abs=1e-12)
    assert found > 0.1


def test_the_mean_of_a_class_activation_map_is_the_logit(student):
    reading = student.reading
    activations = torch.einsum("kc,bchw->bkhw", reading.weight, reading.maps)
    bias = student.network.model.classifier.bias
    assert torch.allclose(activations.mean((2, 3)) + bias, reading.logits, atol=1e-5)
    assert class_similarity(reading).shape == (CLASSES, CLASSES)


def test_only_gradients_need_classifiers_of_equal_width(teacher):
    wider = candidate("resnet_by_stage,width=6,stage1=1,stage2=1,stage3=1")
    by_code = DisWOT(variant="code")
    by_code.learn(teacher)
    with pytest.raises(UserError, match="its classifier has 24 inputs and the teacher's has 16"):
        by_code.terms(wider)
    assert "reading" not in wider.__dict__  # No pass over the batch in vain.
    for score in (DisWOT(variant="paper"), DisWOT(variant="code", semantic=0)):
        score.learn(teacher)
        assert all(value < 0 for value in score.terms(wider).values())


def test_terms_of_weight_zero_are_not_computed(teacher, student):
    score = DisWOT(semantic=0, relation=2.0)
    score.learn(teacher)
    terms = score.terms(student)
    assert list(terms) == ["relation"]
    assert score.total(terms) == 2 * terms["relation"]
    assert score.reads == frozenset()
    assert DisWOT(variant="code").reads == {"classes", "sample-answers", "sample-labels"}
    assert DisWOT(variant="paper").reads == {"classes", "sample-answers"}


def test_a_transformer_whose_classifier_reads_a_token_is_scored(teacher):
    vit = candidate(
        "timm:vit_tiny_patch16_224,img_size=8,patch_size=4,depth=1,embed_dim=16,num_heads=2,pretrained=false"
    )
    assert vit.reading.maps.shape == (BATCH, 16, 1, 1)
    score = DisWOT()
    score.learn(teacher)
    assert score.total(score.terms(vit)) < 0


def test_a_network_without_a_classifier_is_told():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(192, CLASSES)

        def forward(self, images):
            return 2 * self.layer(images.flatten(1))

    shown = Candidate.of(Twice(), Batch(inputs=torch.rand(BATCH, 3, 8, 8)))
    with pytest.raises(UserError, match="classifier cannot be found"):
        shown.reading  # noqa: B018
