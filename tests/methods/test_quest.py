import math
from dataclasses import replace

import pytest
import torch

from tutelage.core.pairing import pair
from tutelage.core.teachers import FrozenTeacher, UniformTeacher
from tutelage.data.images import ResidentImages
from tutelage.errors import UserError
from tutelage.features.anatomy import stages
from tutelage.methods.quest import Quest, WordPredictor, quest, quest_loss, word_logits
from tutelage.models import CATALOGUE
from tutelage.system.console import Silent
from tutelage.testing.toys import TRAINING, ToyNetwork, toy_batch, toy_data, toy_transformer
from tutelage.training.dry_run import DryRun
from tutelage.training.run import Run

WORDS = [[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]]
WEIGHT = [[1.0, 1.0], [1.0, -1.0], [0.0, 1.0]]


def slow_loss(ours, theirs, words, weight, scale, *, temperature, reduction):
    """The paper's equations, one number at a time: of floats, or of scalar tensors, through which gradients flow."""
    batch, height, width, total = len(ours), len(ours[0][0]), len(ours[0][0][0]), 0.0
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                f_s, f_t = ([plane[y][x] for plane in maps[b]] for maps in (ours, theirs))
                distances = [sum((f - v) ** 2 for f, v in zip(f_t, word, strict=True)) for word in words]
                near = [math.exp(-(d - min(distances)) / temperature) for d in distances]
                length = sum(f * f for f in f_s) ** 0.5
                energies = []
                for row in weight:
                    dot = sum(w * f for w, f in zip(row, f_s, strict=True))
                    energies.append(scale * dot / length / sum(w * w for w in row) ** 0.5)
                likely = [math.e**energy for energy in energies]
                for p, q in zip(near, likely, strict=True):
                    p = p / sum(near)
                    if p > 0:
                        total = total + p * (math.log(p) - log(q / sum(likely)))
    return total / batch / (height * width if reduction == "code" else 1)


def log(value):
    return value.log() if isinstance(value, torch.Tensor) else math.log(value)


def nested(tensor):
    """A tensor as lists of lists of scalar tensors, with their gradients."""
    return [nested(part) for part in tensor] if tensor.ndim else tensor


def predictor_of(weight, words, scale=3.0):
    predictor = WordPredictor(len(weight[0]), torch.tensor(words), cosine_scale=scale)
    with torch.no_grad():
        predictor.weight.copy_(torch.tensor(weight))
    return predictor


def place(*values):
    """A map of one place."""
    return torch.tensor(values)[None, :, None, None]


@pytest.mark.parametrize("reduction", ["code", "paper"])
@pytest.mark.parametrize("temperature", [0.2, 3.0])
def test_value_and_gradient_are_the_papers(double, reduction, temperature):
    ours, theirs, words = torch.randn(2, 3, 2, 3), torch.randn(2, 4, 2, 3), torch.randn(5, 4)
    ours.requires_grad_()
    predictor = WordPredictor(3, words, cosine_scale=2.5)
    found = quest_loss(predictor(ours), word_logits(theirs, words, temperature), reduction=reduction)
    expected = slow_loss(
        nested(ours),
        theirs.tolist(),
        words.tolist(),
        nested(predictor.weight),
        predictor.cosine_scale,
        temperature=temperature,
        reduction=reduction,
    )
    assert found.item() == pytest.approx(expected.item(), rel=1e-11)
    leaves = [ours, predictor.weight, predictor.cosine_scale]
    for one, other in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        assert one.abs().max() > 0
        assert (one - other).abs().max() <= 1e-9 * other.abs().max()


def test_known_answers(double):
    target = word_logits(place(1.0, 0.0), torch.tensor(WORDS))
    student = predictor_of(WEIGHT, WORDS)(place(0.0, 2.0))
    assert target.softmax(3).flatten().tolist() == pytest.approx([0.9933071491, 0.0066928509, 1.4e-11], abs=5e-11)
    expected = [0.2922192373, 0.0041990724, 0.7035816903]
    assert student.softmax(3).flatten().tolist() == pytest.approx(expected, abs=5e-11)
    assert (student / 3).flatten().tolist() == pytest.approx([0.70710678, -0.70710678, 1.0], abs=5e-9)
    assert quest_loss(student, target).item() == pytest.approx(1.2184667039473, abs=1e-12)


def test_paper_is_code_times_the_number_of_places():
    student, teacher = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    mean, total = (quest_loss(student, teacher, reduction=name) for name in ("code", "paper"))
    assert total.item() == pytest.approx(15 * mean.item())


def test_length_means_nothing_in_the_student_and_something_in_the_teacher(double):
    ours, theirs = torch.randn(2, 2, 3, 4), torch.randn(2, 2, 3, 4)
    target = word_logits(theirs, torch.tensor(WORDS))
    loss = quest_loss(predictor_of(WEIGHT, WORDS)(ours), target)
    scaled = predictor_of([[7 * w for w in WEIGHT[0]], [0.01 * w for w in WEIGHT[1]], WEIGHT[2]], WORDS)
    torch.testing.assert_close(quest_loss(scaled(100 * ours), target), loss, rtol=1e-12, atol=0)
    other = word_logits(3 * theirs, torch.tensor(WORDS))
    assert abs(quest_loss(predictor_of(WEIGHT, WORDS)(ours), other) - loss) > 1e-3


def test_temperature_goes_from_the_nearest_word_to_all_of_them(double):
    ours, theirs = place(0.3, -2.0), place(0.9, 0.2)
    student = predictor_of(WEIGHT, WORDS)(ours)
    cold = word_logits(theirs, torch.tensor(WORDS), 1e-4)
    assert cold.softmax(3).flatten().tolist() == [1.0, 0.0, 0.0]
    assert quest_loss(student, cold).item() == pytest.approx(-student.log_softmax(3)[0, 0, 0, 0].item())
    hot = word_logits(theirs, torch.tensor(WORDS), 1e9)
    torch.testing.assert_close(hot.softmax(3), torch.full((1, 1, 1, 3), 1 / 3))


@pytest.mark.parametrize(("words", "best"), [(10, math.e**3 / (math.e**3 + 9 * math.e**-3)), (4096, 0.0897)])
def test_how_sure_a_student_can_be_before_its_scale_has_grown(words, best):
    weight = [[1.0, 0.0], *[[-1.0, 0.0]] * (words - 1)]
    predictor = predictor_of(weight, [[0.0]] * words)
    assert predictor(place(1.0, 0.0)).softmax(3).max().item() == pytest.approx(best, abs=5e-5)


def test_the_scale_is_learned_and_the_words_are_not():
    predictor = WordPredictor(4, torch.randn(7, 5))
    assert {name for name, _ in predictor.named_parameters()} == {"weight", "cosine_scale"}
    assert dict(predictor.named_buffers()).keys() == {"codebook"}
    spread = WordPredictor(128, torch.zeros(2000, 5)).weight.std().item()
    assert spread == pytest.approx(math.sqrt(2 / 128), rel=0.02)


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e4])
def test_empty_and_huge_maps_have_finite_losses_and_gradients(size):
    ours = torch.full((2, 3, 2, 5), size, requires_grad=True)
    words = torch.randn(6, 4)
    predictor = WordPredictor(3, words)
    loss = quest_loss(predictor(ours), word_logits(torch.full((2, 4, 2, 5), size), words))
    assert torch.isfinite(loss)
    for gradient in torch.autograd.grad(loss, [ours, *predictor.parameters()]):
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() < 100


def test_a_faint_feature_says_nothing():
    answer = WordPredictor(3, torch.randn(6, 4))(torch.full((1, 3, 1, 1), 1e-6))
    assert answer.abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_everything_is_computed_in_float32_under_autocast(dtype):
    # The squares of these features overflow in float16.
    words, theirs, ours = 300 * torch.randn(6, 64), 300 * torch.randn(2, 64, 2, 5), torch.randn(2, 3, 2, 5)
    theirs, ours, predictor = theirs.to(dtype), ours.to(dtype), WordPredictor(3, words)
    expected = quest_loss(predictor(ours.float()), word_logits(theirs.float(), words))
    with torch.autocast("cpu", dtype):
        found = quest_loss(predictor(ours), word_logits(theirs, words))
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_words_far_from_the_origin_lose_no_distance_to_rounding():
    words, theirs = 1000 + torch.randn(6, 64, dtype=torch.float64), 1000 + torch.randn(2, 64, 2, 3, dtype=torch.float64)
    exact, found = word_logits(theirs, words), word_logits(theirs.float(), words.float())
    torch.testing.assert_close(found.softmax(3), exact.softmax(3).float(), rtol=0, atol=0.02)


class Reporter(Silent):
    """Notes what it is told, and may end a run after some batches, as kill -9 would."""

    def __init__(self, batches=math.inf):
        self.heard, self.left = [], batches

    def note(self, text, *, once=False):
        self.heard.append(text)

    def advance(self, steps):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("killed")


def distill(folder, reporter=None, **options):
    torch.manual_seed(0)
    student, teacher, data = ToyNetwork(), FrozenTeacher(ToyNetwork(10)), toy_data()
    run = Run(folder, replace(TRAINING, checkpoint_seconds=0.0), reporter=reporter)
    return quest(run, student, teacher, data, data.example(2), **{"clusters": 9, **options})


def test_the_words_are_learned_once_and_a_killed_run_goes_on_with_them(tmp_path, monkeypatch):
    from tutelage.methods.parts import codebook

    searches = []

    def counting(*args, original=codebook.k_means, **kwargs):
        searches.append(kwargs)
        return original(*args, **kwargs)

    monkeypatch.setattr(codebook, "k_means", counting)
    straight = distill(tmp_path / "straight")
    assert len(searches) == 1
    with pytest.raises(RuntimeError, match="killed"):
        distill(tmp_path / "killed", Reporter(batches=5))
    assert len(searches) == 2
    resumed = distill(tmp_path / "killed", Reporter())
    assert len(searches) == 2
    for one, other in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("options", [{"clusters": 8}, {"iterations": 3}, {"max_vectors": 100}, {"layers": "layer1"}])
def test_other_words_need_another_folder(tmp_path, options):
    distill(tmp_path)
    with pytest.raises(UserError, match=next(iter(options))):
        distill(tmp_path, **options)


def test_what_is_exported_has_neither_words_nor_predictor(tmp_path):
    network = distill(tmp_path)
    assert type(network) is ToyNetwork
    assert network.state_dict().keys() == ToyNetwork().state_dict().keys()
    assert not any(module._forward_hooks for module in network.modules())


def test_several_layers_have_words_of_their_own_and_their_losses_add_up():
    example = toy_data().example(2)
    books = [torch.randn(4, 10), torch.randn(7, 20)]
    paired = pair(ToyNetwork(), FrozenTeacher(ToyNetwork(10)), "layer1:layer1+layer2:layer2", example)
    both = Quest(paired, books).eval()
    assert [len(predictor.weight) for predictor in both.predictors] == [4, 7]
    total = 0.0
    student, teacher = both.student(toy_batch().inputs), both.teacher(toy_batch())
    for each, book, predictor in zip(both.pairs, books, both.predictors, strict=True):
        ours, theirs = each.maps(student, teacher)
        total += quest_loss(predictor(ours), word_logits(theirs, book)).item()
    assert both.losses(toy_batch())["quest"].item() == pytest.approx(total)


def tiny():
    return CATALOGUE["tiny_cnn"](5)


def resnet():
    return CATALOGUE["resnet8"](5)


class Meeting(DryRun):
    def meet(self, name, method, data, *, epochs, stop):
        self.method = method


@pytest.mark.parametrize(
    ("make_student", "make_teacher", "size", "layers"),
    [
        (tiny, toy_transformer, (32, 32), "auto"),
        (toy_transformer, tiny, (32, 32), "auto"),
        (tiny, resnet, (33, 50), "early:late"),
        (resnet, tiny, (33, 50), "auto"),
    ],
)
def test_any_two_networks_and_any_size(make_student, make_teacher, size, layers):
    images = torch.randint(256, (8, 3, *size), dtype=torch.uint8)
    data = replace(
        toy_data().with_splits(train=ResidentImages(images, torch.arange(8) % 5)), image_size=size, num_classes=5
    )
    student, teacher, run = make_student(), FrozenTeacher(make_teacher()), Meeting(TRAINING)
    if layers == "early:late":
        (early, *_), (*_, late) = (stages(network, data.example(2)) for network in (student, teacher.network))
        layers = f"{early.layer}:{late.layer}"
    quest(run, student, teacher, data, data.example(2), clusters=6, layers=layers)
    losses = run.method.train().losses(next(iter(data.loader("train", train=False, batch_size=8).epoch(0))))
    losses["quest"].backward()
    (predictor,) = run.method.predictors
    assert predictor.codebook.shape == (6, run.method.pairs[0].teacher.channels)
    assert torch.isfinite(predictor.weight.grad).all()
    assert predictor.weight.grad.abs().max() > 0


def test_nonsense_is_refused(tmp_path):
    with pytest.raises(UserError, match="temperature=0"):
        distill(tmp_path, temperature=0.0)
    with pytest.raises(UserError, match="max_vectors=3 must be at least clusters=9"):
        distill(tmp_path, max_vectors=3)
    assert not list(tmp_path.iterdir())


def test_a_teacher_without_layers_is_refused():
    data = toy_data()
    with pytest.raises(UserError):
        quest(DryRun(TRAINING), ToyNetwork(), UniformTeacher(6), data, data.example(2))
