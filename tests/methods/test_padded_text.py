"""Padded text: whatever is appended behind a text, every method that reads layers has the same losses and gradients."""

import copy
import math
from dataclasses import replace
from functools import partial
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import nn

from tutelage.core.method import Progress
from tutelage.core.pairing import Compared
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.experiments import catalogue
from tutelage.experiments.choice import Choice
from tutelage.experiments.serving import why_not
from tutelage.features.anatomy import Tap
from tutelage.features.extractor import FeatureExtractor
from tutelage.features.maps import MapLayout
from tutelage.features.padding import without_padding
from tutelage.methods.afd import AFD
from tutelage.methods.at import attention_loss
from tutelage.methods.byot import BYOT
from tutelage.methods.fitnet import hint_loss
from tutelage.methods.fsp import fsp_matrix
from tutelage.methods.msd import MSD
from tutelage.methods.parts.squeezing import Squeezing, TeacherAttention, squeezable, squeeze
from tutelage.methods.quest import quest_loss
from tutelage.methods.semckd import SemanticCalibration
from tutelage.methods.simkd import SimKD
from tutelage.methods.sp import similarity_loss
from tutelage.methods.srrl import SRRL
from tutelage.methods.vid import gaussian_loss
from tutelage.models.answers import answer
from tutelage.testing.kinds import KINDS
from tutelage.testing.texts import TOKENS
from tutelage.testing.texts import WORDS as KIND_WORDS
from tutelage.testing.toys import STUDENT_WIDTH, TEACHER_WIDTH, methods_of

TEXT = KINDS["text"]
CLASSES, WORDS = 5, 11
LENGTHS = (6, 2, 5, 3, 6, 4, 1, 5)


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Block(nn.Module):
    """Attends to tokens alone, and adds what a layer makes of them."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.ask, self.say = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, hidden, mask):
        query, key, value = self.ask(self.norm(hidden)).chunk(3, 2)
        energies = query @ key.mT / math.sqrt(hidden.shape[2])
        attention = energies.masked_fill(mask[:, None] == 0, -torch.inf).softmax(2)
        return hidden + self.say(attention @ value).tanh()


class Transformer(nn.Module):
    """A transformer in small, which classifies the mean over the tokens."""

    def __init__(self, width=8, depth=4):
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, width), nn.Embedding(20, width)
        self.layer = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm, self.classifier = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, input_ids, attention_mask):
        hidden = self.words(input_ids) + self.places.weight[: input_ids.shape[1]]
        for block in self.layer:
            hidden = block(hidden, attention_mask)
        mask = attention_mask[:, :, None]
        return self.classifier((self.norm(hidden) * mask).sum(1) / mask.sum(1))


def texts(tokens=6, *, lengths=LENGTHS):
    """Return texts of some lengths, padded to a number of tokens by words that differ each time."""
    words = torch.randint(WORDS, (len(lengths), 20), generator=torch.Generator().manual_seed(0))[:, :tokens]
    mask = (torch.arange(tokens) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": torch.where(mask == 1, words, torch.randint_like(words, WORDS)), "attention_mask": mask}


def padded(batch, tokens):
    """Return a batch whose texts have more padding, of words that differ each time."""
    words, mask = (batch.inputs[name] for name in ("input_ids", "attention_mask"))
    more = torch.zeros(len(mask), tokens, dtype=mask.dtype)
    mask = torch.cat([mask, more], 1)
    words = torch.cat([words, more], 1)
    inputs = {"input_ids": torch.where(mask == 1, words, torch.randint_like(words, KIND_WORDS)), "attention_mask": mask}
    return replace(batch, inputs=inputs)


def values_of(build, name):
    """Return the values of an option that has few: those of a Literal, or both of a switch."""
    init = build.__init__ if isinstance(build, type) else build
    kind = get_type_hints(init).get(name)
    return get_args(kind) if get_origin(kind) is Literal else (False, True) if kind is bool else ()


def cases():
    """Yield each method that reads layers and serves texts, with each value of each of its options that has few."""
    for entry in catalogue.entries():
        # A method that reads layers is given an example, to find them by.
        if "example" not in entry.fixtures or why_not(Choice(entry, {}), TEXT.offers) is not None:
            continue
        yield entry.name, {}
        for option, default in entry.hyper_parameters.items():
            others = [value for value in values_of(entry.build, option) if value != default]
            # A layer with a place for each token, where a method may read another by default.
            others += ["layers.1"] if option == "layers" else []
            for value in others:
                if why_not(Choice(entry, {option: value}), TEXT.offers) is None:
                    yield entry.name, {option: value}


CASES = [pytest.param(name, options, id=f"{name} {options or ''}") for name, options in cases()]


def methods(name, options):
    """Return the methods of a case that read layers, by stage; none if it refuses padded texts."""
    entry = catalogue.get(name)
    for width in (TEACHER_WIDTH, STUDENT_WIDTH):
        torch.manual_seed(0)
        try:
            found = methods_of(entry, TEXT.experiment(teacher_width=width), options)
        except UserError as error:
            if "padding cannot be left out" in str(error):
                return {}
            # Some need a teacher as wide as the student.
            if width == STUDENT_WIDTH:
                raise
        else:
            return {stage: method.train() for stage, method in found.items() if any(shapes_of(method))}
    raise AssertionError


def shapes_of(method):
    """Yield the shapes of what a method's networks read beside their logits."""
    for module in method.modules():
        if isinstance(module, FeatureExtractor):
            yield from module.shapes.values()


def losses(method, batch):
    """Return the losses of each update and their gradients, of a method as it is."""
    method = copy.deepcopy(method)
    torch.manual_seed(0)
    found = {}
    for number, update in enumerate(method.step(batch, Progress())):
        params = {name: param for name, param in method.named_parameters() if param.requires_grad}
        total = torch.stack(list(update.losses.values())).sum()
        gradients = torch.autograd.grad(total, list(params.values()), allow_unused=True)
        found |= {f"{number}/{name}": loss.detach() for name, loss in update.losses.items()}
        found |= {f"{number}/{name}": one for name, one in zip(params, gradients, strict=True) if one is not None}
    # Batch norms of adapters go on from the same statistics.
    return found | {name: buffer for name, buffer in method.named_buffers() if buffer.is_floating_point()}


@pytest.mark.parametrize(("name", "options"), CASES)
def test_more_padding_changes_neither_losses_nor_gradients(name, options):
    batch = TEXT.batch()
    for stage, method in methods(name, options).items():
        short, long = (losses(method, padded(batch, tokens)) for tokens in (0, 5))
        assert short.keys() == long.keys()
        for key, value in short.items():
            where = f"{stage}, {key}: "
            torch.testing.assert_close(
                long[key], value, rtol=1e-7, atol=1e-10, msg=lambda text, where=where: where + text
            )


@pytest.mark.parametrize(("name", "options"), CASES)
def test_without_the_mask_it_would(name, options, monkeypatch):
    found = methods(name, options)
    batch = TEXT.batch()
    monkeypatch.setattr(MapLayout, "mask", lambda *_: None)
    for method in found.values():
        if any(shape[1:2] == (TOKENS,) for shape in shapes_of(method)):
            short, long = (losses(method, padded(batch, tokens)) for tokens in (0, 5))
            assert any(not torch.allclose(short[key], long[key], rtol=1e-4) for key in short if key[1] == "/")


def test_every_method_that_compares_layers_of_texts_is_a_case():
    named = {case.values[0] for case in CASES}
    compared = [entry for entry in catalogue.entries() if "layers" in entry.hyper_parameters]
    assert len(named) > 20
    assert {entry.name for entry in compared if why_not(Choice(entry, {}), TEXT.offers) is None} <= named
    silent = {name for name in named if not methods(name, {})}
    # Those that read none by default do so in another case; what wraps a method reads none itself.
    cases = [case.values for case in CASES if case.values[0] in silent]
    reading = {name for name, options in cases if methods(name, options)}
    assert all("distill" in catalogue.get(name).fixtures for name in silent - reading)


def students():
    torch.manual_seed(0)
    return Transformer(), FrozenTeacher(Transformer(12)), texts(lengths=(6, 3))


def ksanc_attention():
    student, teacher, example = students()
    paired = squeezable(student, teacher, "auto", example)
    return TeacherAttention(paired.teacher, Squeezing.of_teacher(paired.pairs), CLASSES)


@pytest.mark.parametrize("kind", [BYOT, MSD])
def test_exits_answer_a_padded_text_as_the_text(kind):
    student, _, example = students()
    method = kind(student, example).eval()
    for tokens in (6, 11):
        predictions = method(texts(tokens))
        for exit_name, network in method.members().items():
            torch.testing.assert_close(answer(network, texts(tokens)), predictions[exit_name])
    for key, value in method(texts(6)).items():
        torch.testing.assert_close(method(texts(11))[key], value)


@pytest.mark.parametrize("make", [ksanc_attention, lambda: SimKD(*students()), lambda: SRRL(*students())])
def test_networks_that_ship_take_a_text_by_name(make):
    method = make().eval()
    expected = next(iter(method(texts(6)).values()))
    network = method.export().eval()
    torch.testing.assert_close(answer(network, texts(11)), expected)


def test_a_contest_over_neighbouring_places_is_refused():
    networks, example = [Transformer(), Transformer()], texts()
    with pytest.raises(UserError, match="padding cannot be left out here: afd's discriminators mix"):
        AFD(networks, example)
    method = AFD(networks, example, adversarial=False)
    assert len(losses(method, Batch(inputs=example, targets=torch.arange(len(LENGTHS)) % CLASSES))) > 2


# Each sample counts as if it were cut to its length. The loss without a mask is held against the equations elsewhere.


def mask_of(tokens):
    return texts(tokens)["attention_mask"].bool()[:, None, None, :]


@pytest.fixture
def maps():
    """A student's and a teacher's map, padded by what must not matter."""
    both = torch.randn(len(LENGTHS), 4, 1, 6), torch.randn(len(LENGTHS), 4, 1, 6)
    return [one.masked_fill(~mask_of(6), 1e3).requires_grad_() for one in both]


def cut(*maps):
    return [[one[number : number + 1, :, :, :length] for one in maps] for number, length in enumerate(LENGTHS)]


def agree(found, expected, *inputs):
    torch.testing.assert_close(found, expected)
    weights = torch.arange(found.numel()).view_as(found).cos()
    gradients = [torch.autograd.grad((one * weights).sum(), inputs) for one in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "loss",
    [
        attention_loss,
        partial(attention_loss, variant="paper"),
        hint_loss,
        lambda student, teacher, mask=None: gaussian_loss(student, teacher, torch.tensor([0.5, 1, 2, 3]), mask),
    ],
    ids=["at", "at, paper", "fitnet", "vid"],
)
def test_a_distance_is_the_mean_over_texts_that_are_cut_to_their_length(loss, maps):
    student, teacher = maps
    expected = torch.stack([loss(*parts) for parts in cut(student, teacher)]).mean()
    agree(loss(student, teacher, mask=mask_of(6)), expected, student)


@pytest.mark.parametrize("reduction", ["code", "paper"])
def test_words_are_compared_at_the_tokens(reduction, maps):
    student, teacher = (one.movedim(1, 3) for one in maps)
    parts = cut(*maps)
    expected = [quest_loss(one.movedim(1, 3), other.movedim(1, 3), reduction=reduction) for one, other in parts]
    found = quest_loss(student, teacher, reduction=reduction, mask=mask_of(6))
    agree(found, torch.stack(expected).mean(), maps[0])


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_a_flow_is_the_mean_over_the_tokens(variant, maps):
    expected = torch.cat([fsp_matrix(*parts, variant=variant) for parts in cut(*maps)])
    agree(fsp_matrix(*maps, variant=variant, mask=mask_of(6)), expected, *maps)


@pytest.mark.parametrize("attend", ["equation", "drawing"])
@pytest.mark.parametrize("pooling", ["sum", "average"])
def test_attention_falls_on_tokens_alone(attend, pooling, maps):
    descriptors, weight = torch.randn(len(LENGTHS), 4), torch.randn(4)
    rest = {"attend": attend, "pooling": pooling}
    expected = [
        squeeze(one, descriptors[number : number + 1], weight, **rest) for number, (one,) in enumerate(cut(maps[0]))
    ]
    agree(squeeze(maps[0], descriptors, weight, mask=mask_of(6), **rest), torch.cat(expected), maps[0])


def test_texts_are_alike_at_the_tokens_that_both_have(maps):
    def gram(features):
        rows = [
            [
                (features[one, :, :, : min(a, b)] * features[other, :, :, : min(a, b)]).sum()
                for other, b in enumerate(LENGTHS)
            ]
            for one, a in enumerate(LENGTHS)
        ]
        found = torch.stack([torch.stack(row) for row in rows])
        return found / found.square().sum(1, keepdim=True).sqrt()

    expected = (gram(maps[0]) - gram(maps[1]).detach()).square().mean()
    found = similarity_loss(*(without_padding(one, mask_of(6)) for one in maps))
    agree(found, expected, maps[0])


def test_a_distance_of_layers_is_that_of_texts_that_are_cut(maps):
    tap = Tap("layer", MapLayout("tokens"), 4, (1, 6))
    calibration = SemanticCalibration([tap], [tap], len(LENGTHS)).eval()
    expected = [calibration._distance(0, 0, Compared(*parts, None)) for parts in cut(*maps)]
    agree(calibration._distance(0, 0, Compared(*maps, mask_of(6))), torch.cat(expected), maps[0])
