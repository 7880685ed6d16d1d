"""Structured distillation: its terms, its variants, and the turns that student and critic take."""

import math

import pytest
import torch

from tutelage.core.method import Progress
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.losses import kd_loss, soft_cross_entropy
from tutelage.methods.parts.affinity import nodes_of, pairwise_loss
from tutelage.methods.structured import Structured
from tutelage.testing.maps import ToyMapNetwork
from tutelage.testing.toys import CLASSES

INPUTS = torch.rand(3, 3, 12, 16, generator=torch.Generator().manual_seed(0))
BATCH = Batch(inputs=INPUTS, targets=torch.zeros(3, 12, 16, dtype=torch.long))


def made(**options):
    torch.manual_seed(0)
    return Structured(ToyMapNetwork(4), FrozenTeacher(ToyMapNetwork(8).eval()), INPUTS, **options)


def updates(method, batch=BATCH):
    return list(method.step(batch, Progress(total_steps=2)))


def maps_before_the_classifier(network, size=(12, 16)):
    coarse = network.layer2(network.layer1(INPUTS))
    return torch.nn.functional.interpolate(coarse, size, mode="bilinear")


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_the_terms_are_those_of_the_variant(variant):
    method = made(variant=variant)
    student, critic = updates(method)
    assert set(student.losses) == {"ce", "pixels", "pairs", "fooling"}
    assert critic.optimizer == "critic"
    assert set(critic.losses) == {"critic", "penalty"}
    network, teacher = method.student.model, method.teacher.network
    ours, theirs = network(INPUTS), teacher(INPUTS)
    mine, others = maps_before_the_classifier(network), maps_before_the_classifier(teacher)
    if variant == "paper":
        pixels, patch, pooling = kd_loss(ours, theirs, 1.0), (2, 2), "average"
    else:
        pixels, patch, pooling = 3 * soft_cross_entropy(ours, theirs, 1.0), (6, 8), "max"
    torch.testing.assert_close(student.losses["pixels"], pixels)
    nodes = (nodes_of(one, patch, pooling) for one in (mine, others))
    torch.testing.assert_close(student.losses["pairs"], pairwise_loss(*nodes, detach_norm=variant == "code"))
    assert method.weights["penalty"] == pytest.approx(10.0 if variant == "paper" else 1.0)


def test_the_pixels_of_uniform_answers_cost_the_logarithm_of_the_classes():
    uniform = torch.zeros(2, 19, 4, 5, dtype=torch.float64)
    assert 2 * soft_cross_entropy(uniform, uniform, 1.0).item() == pytest.approx(2 * 2.9444389792, abs=1e-9)
    assert math.log(19) == pytest.approx(2.9444389792, abs=1e-10)


@pytest.mark.parametrize(
    ("options", "terms"),
    [
        ({"pair_weight": 0.0, "holistic_weight": 0.0}, {"ce", "pixels"}),
        ({"pixel_weight": 0.0, "holistic_weight": 0.0}, {"ce", "pairs"}),
        ({"pixel_weight": 0.0, "pair_weight": 0.0}, {"ce", "fooling"}),
    ],
)
def test_a_weight_of_zero_leaves_its_term_out(options, terms):
    method = made(**options)
    found = updates(method)
    assert set(found[0].losses) == terms
    assert len(found) == (2 if "fooling" in terms else 1)
    assert set(method.optimizers()) == ({"student", "critic"} if "fooling" in terms else {"student"})


def test_each_steps_on_its_own_parameters_and_the_student_first():
    method = made()
    specs = method.optimizers()
    ours, theirs = ({id(p) for p in specs[name].params} for name in ("student", "critic"))
    assert not ours & theirs
    assert ours | theirs == {id(p) for p in method.parameters() if p.requires_grad}
    assert specs["critic"].lr_scale == 0.04
    student, critic = updates(method)
    graph = torch.autograd.grad(sum(critic.losses.values()), list(specs["student"].params), allow_unused=True)
    assert all(gradient is None for gradient in graph), "the critic's losses do not reach the student"
    assert student.optimizer == "student"


def test_the_student_climbs_and_the_critic_tells_them_apart():
    method = made(variant="code", pixel_weight=0.0, pair_weight=0.0)
    student, critic = updates(method)
    real = method.teacher(BATCH).logits
    fake = method.student(INPUTS).logits
    with torch.no_grad():
        method.critic.eval()
        told = method.critic(fake).mean() - method.critic(real).mean()
    assert torch.isfinite(told)
    assert student.losses["fooling"].requires_grad
    assert torch.isfinite(critic.losses["penalty"])
    hinge = made(adversarial="hinge")
    assert set(updates(hinge)[1].losses) == {"critic"}
    assert "penalty" not in hinge.weights


def test_images_without_masks_learn_by_all_terms_but_the_first():
    student, _ = updates(made(), Batch(inputs=INPUTS))
    assert set(student.losses) == {"pixels", "pairs", "fooling"}
    unknown = Batch(inputs=INPUTS, targets=torch.full((3, 12, 16), -1))
    assert updates(made(), unknown)[0].losses["ce"].item() == 0


def test_named_layers_and_patches():
    method = made(variant="paper", layers="layer2", patch=1, holistic_weight=0.0)
    ours, theirs = (net.layer2(net.layer1(INPUTS)) for net in (method.student.model, method.teacher.network))
    expected = pairwise_loss(*(nodes_of(one, (1, 1), "average") for one in (ours, theirs)))
    torch.testing.assert_close(updates(method)[0].losses["pairs"], expected)


def test_the_critic_judges_the_image_too_in_the_paper():
    assert made(variant="paper").critic.layers[0].num_features == CLASSES + 3
    assert made(variant="code").critic.layers[0].num_features == CLASSES
    assert not any("critic" in name for name, _ in made().export().named_parameters())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pixel_weight": -1.0}, "The weight of pixels is -1.0"),
        ({"pixel_weight": 0.0, "pair_weight": 0.0, "holistic_weight": 0.0}, "choose supervised"),
        ({"patch": 0}, "patch=0"),
        ({"critic_lr_scale": 0.0}, "critic_lr_scale=0.0 must be above zero"),
    ],
)
def test_what_cannot_be_is_refused(options, said):
    with pytest.raises(UserError, match=said):
        made(**options)
