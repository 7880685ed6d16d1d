"""Channel-wise distillation against a slow loop and known answers."""

import math

import pytest
import torch
from torch import nn

from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.methods.cwd import CWD, channel_loss
from tutelage.testing.kinds import KINDS
from tutelage.testing.maps import ToyMapNetwork
from tutelage.testing.toys import ToyNetwork


def softmax(row, temperature):
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def slow(student, teacher, temperature):
    """The equation, one channel of one sample after the other; and its gradient."""
    samples, channels, height, width = student.shape
    total, gradient = 0.0, torch.zeros_like(student)
    for n in range(samples):
        for c in range(channels):
            ours = softmax(student[n, c].flatten().tolist(), temperature)
            theirs = softmax(teacher[n, c].flatten().tolist(), temperature)
            total += sum(q * (math.log(q) - math.log(p)) for q, p in zip(theirs, ours))
            # d KL / d s_i = (p_i - q_i) / T, times T^2 over N C.
            parts = [temperature * (p - q) / (samples * channels) for q, p in zip(theirs, ours)]
            gradient[n, c] = torch.tensor(parts, dtype=student.dtype).view(height, width)
    return temperature**2 * total / (samples * channels), gradient


@pytest.mark.parametrize("temperature", [0.7, 1.0, 4.0])
def test_value_and_gradient_equal_a_slow_loop(temperature):
    torch.manual_seed(0)
    student = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    loss = channel_loss(student, teacher, temperature)
    value, expected = slow(student.detach(), teacher.detach(), temperature)
    assert loss.item() == pytest.approx(value, rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(gradient, expected)
    assert teacher.grad is None


@pytest.mark.parametrize(("temperature", "known"), [(1.0, 0.1308120), (2.0, 0.1453631)])
def test_two_places_and_a_constant_student(temperature, known):
    teacher = torch.tensor([[[[0.0, math.log(3)]]]], dtype=torch.float64)
    student = torch.full_like(teacher, 5.0)
    assert channel_loss(student, teacher, temperature).item() == pytest.approx(known, abs=5e-8)


@pytest.mark.parametrize(("temperature", "known"), [(1.0, 0.4789298813), (4.0, 0.5555627774), (1000.0, 0.5469296321)])
def test_two_channels_of_four_places(temperature, known):
    student = torch.tensor([[[[1, 2], [0, 1]], [[0, 0], [3, 0]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[2, 0], [1, 1]], [[1, 0], [2, 1]]]], dtype=torch.float64)
    assert channel_loss(student, teacher, temperature).item() == pytest.approx(known, abs=1e-9)


def test_at_high_temperature_it_is_half_the_variance_of_the_difference():
    student, teacher = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    limit = (teacher - student).flatten(2).var(2, unbiased=False).mean() / 2
    assert channel_loss(student, teacher, 1e5).item() == pytest.approx(limit.item(), rel=1e-4)


def test_constants_of_a_channel_and_the_order_of_places_do_not_matter():
    student, teacher = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    loss, order = channel_loss(student, teacher), torch.randperm(16)
    shifted = channel_loss(student + torch.randn(2, 3, 1, 1), teacher + torch.randn(2, 3, 1, 1))
    torch.testing.assert_close(shifted, loss)
    mixed = (maps.flatten(2)[..., order].view_as(maps) for maps in (student, teacher))
    torch.testing.assert_close(channel_loss(*mixed), loss)
    assert not torch.allclose(channel_loss(2 * student, teacher), loss)


def test_padding_is_no_place():
    student, teacher = torch.randn(1, 2, 1, 5), torch.randn(1, 2, 1, 5)
    mask = torch.tensor([True, True, True, False, False]).view(1, 1, 1, 5)
    torch.testing.assert_close(
        channel_loss(student, teacher, mask=mask), channel_loss(student[..., :3], teacher[..., :3])
    )


def test_large_maps_in_half_precision_are_finite():
    student = (torch.randn(1, 2, 300, 300) * 50).half().requires_grad_()
    loss = channel_loss(student, (torch.randn(1, 2, 300, 300) * 50).half(), 1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


class Coarse(nn.Module):
    """Answers with a map at stride 4, as its classifier makes it."""

    def __init__(self, width, enlarge):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, 4, 1), nn.ReLU())
        self.classifier, self.enlarge = nn.Conv2d(width, 5, 1), enlarge

    def forward(self, inputs):
        coarse = self.classifier(self.body(inputs))
        size = inputs.shape[2:]
        return nn.functional.interpolate(coarse, size, mode="bilinear") if self.enlarge else coarse


def test_logits_are_compared_where_they_are_computed():
    torch.manual_seed(0)
    inputs = torch.rand(2, 3, 16, 24)
    student, teacher = Coarse(4, enlarge=True), Coarse(8, enlarge=False).eval()
    method = CWD(student, FrozenTeacher(teacher), inputs)
    losses = method.losses(Batch(inputs=inputs))
    assert set(losses) == {"channels"}, "without masks nothing is supervised"
    expected = channel_loss(student.classifier(student.body(inputs)), teacher(inputs))
    torch.testing.assert_close(losses["channels"], expected)
    masks = torch.zeros(2, 16, 24, dtype=torch.long)
    assert set(method.losses(Batch(inputs=inputs, targets=masks))) == {"ce", "channels"}
    assert method(inputs)["student"].shape == (2, 5, 16, 24)


def test_strides_that_differ_meet_at_the_coarser_one():
    inputs = torch.rand(2, 3, 16, 24)
    fine = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 5, 1)).eval()
    student = Coarse(4, enlarge=False)
    loss = CWD(student, FrozenTeacher(fine), inputs).losses(Batch(inputs=inputs))["channels"]
    pooled = nn.functional.adaptive_avg_pool2d(fine(inputs), (4, 6))
    torch.testing.assert_close(loss, channel_loss(student(inputs), pooled))


def test_features_where_whole_images_are_classified():
    inputs = torch.rand(4, 3, 12, 16)
    method = CWD(ToyNetwork(4), FrozenTeacher(ToyNetwork(8)), inputs)
    assert len(method.pairs) == len(method.adapters) == 1
    exported = {name for name, _ in method.export().named_parameters()}
    assert not any("adapter" in name for name in exported)
    assert CWD(ToyMapNetwork(4), FrozenTeacher(ToyMapNetwork(8)), inputs, on="features").pairs
    assert not CWD(ToyMapNetwork(4), FrozenTeacher(ToyMapNetwork(8)), inputs).pairs


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": 0.0}, "temperature=0"),
        ({"alpha": -1.0}, "alpha=-1.0 must be zero or more"),
        ({"on": "logits", "layers": "layer1"}, "names features"),
        ({"on": "features", "layers": "embedding"}, "share one place"),
    ],
)
def test_what_cannot_be_is_refused(options, said):
    with pytest.raises(UserError, match=said):
        CWD(ToyNetwork(4), FrozenTeacher(ToyNetwork(8)), torch.rand(4, 3, 12, 16), **options)


def test_logits_of_whole_images_are_refused_by_what_the_data_offer():
    from tutelage.experiments import catalogue
    from tutelage.experiments.choice import Choice
    from tutelage.experiments.serving import why_not

    choice = Choice(catalogue.get("cwd"), {"on": "logits"})
    assert why_not(choice, KINDS["labels"].offers) == "it needs an answer at each place of an image"
