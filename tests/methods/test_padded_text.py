"""Padded text: whatever is appended behind a text, every method that reads layers has the same losses and gradients."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

from tutelage.core.method import Progress
from tutelage.core.pairing import Compared, pair
from tutelage.core.teachers import FrozenTeacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.anatomy import Tap
from tutelage.features.maps import MapLayout
from tutelage.features.padding import without_padding
from tutelage.methods.afd import AFD
from tutelage.methods.at import AT, attention_loss
from tutelage.methods.byot import BYOT
from tutelage.methods.features import Features
from tutelage.methods.fitnet import FitNet, FitNetHints, hint_loss
from tutelage.methods.fsp import FSPInitialization, fsp_matrix
from tutelage.methods.ksanc import KSANC
from tutelage.methods.msd import MSD
from tutelage.methods.parts.squeezing import Squeezing, TeacherAttention, squeezable, squeeze
from tutelage.methods.quest import Quest, quest_loss
from tutelage.methods.reviewkd import ReviewKD
from tutelage.methods.rkd import RKD
from tutelage.methods.semckd import SemanticCalibration, SemCKD
from tutelage.methods.simkd import SimKD
from tutelage.methods.sp import SP, similarity_loss
from tutelage.methods.srrl import SRRL
from tutelage.methods.vid import VID, gaussian_loss
from tutelage.models.answers import answer

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


def batch(tokens):
    return Batch(inputs=texts(tokens), targets=torch.arange(len(LENGTHS)) % CLASSES)


def quest(student, teacher, example, **options):
    paired = pair(student, teacher, "auto", example, take="last", logits=False)
    return Quest(paired, [torch.randn(7, one.teacher.channels) for one in paired.pairs], **options)


def ksanc(student, teacher, example, **options):
    paired = squeezable(student, teacher, "auto", example)
    return KSANC(paired, Squeezing.of_teacher(paired.pairs), CLASSES, **options)


def ksanc_attention(student, teacher, example):
    paired = squeezable(student, teacher, "auto", example)
    return TeacherAttention(paired.teacher, Squeezing.of_teacher(paired.pairs), CLASSES)


def alone(method, **options):
    return lambda student, _, example: method(student, example, **options)


METHODS = {
    "at": AT,
    "at, paper": partial(AT, variant="paper"),
    "sp": SP,
    "vid": VID,
    "features": Features,
    "features, cosine": partial(Features, distance="cosine"),
    "fitnet": FitNet,
    "fitnet, hints": FitNetHints,
    "fsp": FSPInitialization,
    "fsp, paper": partial(FSPInitialization, variant="paper"),
    "semckd": partial(SemCKD, batch_size=len(LENGTHS)),
    "rkd": partial(RKD, batch_size=len(LENGTHS), layers="layer.3"),
    "reviewkd": ReviewKD,
    "quest": quest,
    "quest, paper": partial(quest, reduction="paper"),
    "ksanc": ksanc,
    "ksanc, average": partial(ksanc, pooling="average"),
    "ksanc, attention": ksanc_attention,
    "srrl": SRRL,
    "srrl, vector": partial(SRRL, variant="vector"),
    "simkd": SimKD,
    "byot": alone(BYOT),
    "byot, code": alone(BYOT, variant="code"),
    "byot, journal": alone(BYOT, variant="journal"),
    "msd": alone(MSD),
    "msd, separable": alone(MSD, separable=True),
}


@pytest.fixture
def make():
    def built(name):
        torch.manual_seed(0)
        student, teacher = Transformer(), Transformer(8 if "fsp" in name else 12)
        return METHODS[name](student, FrozenTeacher(teacher), texts(lengths=(6, 3))).train()

    return built


def losses(method, tokens):
    """Return the losses of each update and their gradients, of a method as it is."""
    method = copy.deepcopy(method)
    found = {}
    for number, update in enumerate(method.step(batch(tokens), Progress())):
        params = {name: param for name, param in method.named_parameters() if param.requires_grad}
        total = torch.stack(list(update.losses.values())).sum()
        gradients = torch.autograd.grad(total, list(params.values()), allow_unused=True)
        found |= {f"{number}/{name}": loss.detach() for name, loss in update.losses.items()}
        found |= {f"{number}/{name}": one for name, one in zip(params, gradients, strict=True) if one is not None}
    # Batch norms of adapters go on from the same statistics.
    return found | {name: buffer for name, buffer in method.named_buffers() if buffer.is_floating_point()}


@pytest.mark.parametrize("name", METHODS)
def test_more_padding_changes_neither_losses_nor_gradients(name, make):
    method = make(name)
    short, long = losses(method, 6), losses(method, 11)
    assert short.keys() == long.keys()
    assert len(short) > 3
    for key, value in short.items():
        torch.testing.assert_close(long[key], value, rtol=1e-7, atol=1e-10, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", METHODS)
def test_without_the_mask_it_would(name, make, monkeypatch):
    method = make(name)
    monkeypatch.setattr(MapLayout, "mask", lambda *_: None)
    short, long = losses(method, 6), losses(method, 11)
    assert any(not torch.allclose(short[key], long[key], rtol=1e-4) for key in short if key.startswith(("0/", "1/")))


@pytest.mark.parametrize("name", ["byot", "msd"])
def test_exits_answer_a_padded_text_as_the_text(name, make):
    method = make(name).eval()
    for tokens in (6, 11):
        predictions = method(texts(tokens))
        for exit_name, network in method.members().items():
            torch.testing.assert_close(answer(network, texts(tokens)), predictions[exit_name])
    for key, value in method(texts(6)).items():
        torch.testing.assert_close(method(texts(11))[key], value)


def test_networks_that_ship_take_a_text_by_name(make):
    for name in ("ksanc, attention", "simkd", "srrl"):
        method = make(name).eval()
        expected = next(iter(method(texts(6)).values()))
        network = method.export().eval()
        torch.testing.assert_close(answer(network, texts(11)), expected)


def test_a_contest_over_neighbouring_places_is_refused():
    students, example = [Transformer(), Transformer()], texts()
    with pytest.raises(UserError, match="padding cannot be left out here: afd's discriminators mix"):
        AFD(students, example)
    method = AFD(students, example, adversarial=False)
    assert len(losses(method, 6)) > 2


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
