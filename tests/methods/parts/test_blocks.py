import pytest
import torch
from torch import nn

from tutelage.core.teachers import EnsembleTeacher, FrozenTeacher
from tutelage.errors import NoLayersError, UserError
from tutelage.methods.parts.blocks import check_first_token, paired_blocks, places_of, start_as_teacher
from tutelage.testing.texts import TextBlock, ToyTextNetwork
from tutelage.testing.toys import ToyNetwork

INPUTS = {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}


def network(depth=2, width=3, seed=0):
    torch.manual_seed(seed)
    found = ToyTextNetwork(width)
    found.layers = nn.ModuleList(TextBlock(2 * width) for _ in range(depth))
    return found


def named(pairs):
    return [(pair.student.layer, pair.teacher.layer) for pair in pairs]


@pytest.mark.parametrize(
    ("ours", "theirs", "blocks"),
    [(2, 4, [1, 3]), (3, 6, [1, 3, 5]), (2, 2, [0, 1]), (1, 3, [2]), (2, 5, [1, 4])],
)
def test_every_so_many_th_block_teaches_and_the_last_is_among_them(ours, theirs, blocks):
    pairs = paired_blocks(network(ours), FrozenTeacher(network(theirs)), "auto", INPUTS)
    assert named(pairs) == [(f"layers.{one}", f"layers.{other}") for one, other in enumerate(blocks)]
    assert pairs[0].student.channels == 6
    assert places_of([pair.student.layer for pair in pairs])[:2] == ["layers.0", "layers.0:attention"]


def test_blocks_by_name_are_taken_from_below():
    teacher = FrozenTeacher(network(4))
    pairs = paired_blocks(network(), teacher, "layers.1:layers.2+layers.0", INPUTS)
    assert named(pairs) == [("layers.0", "layers.0"), ("layers.1", "layers.2")]


@pytest.mark.parametrize(
    ("student", "teacher", "layers", "words"),
    [
        (network(3), network(2), "auto", "The student has 3 blocks with attention and the teacher only 2"),
        (network(), network(), "layers.2:layers.1", "no block with attention in the student"),
        (network(), network(), "layers.1:embeddings", "no block with attention in the teacher"),
        (network(), network(), "layers.1:layers.0+layers.1", "names a block of the student twice"),
        (network(width=3), network(width=4), "auto", "states of 6 numbers, and layers.0 of the teacher of 8"),
    ],
)
def test_what_does_not_fit_is_refused(student, teacher, layers, words):
    with pytest.raises(UserError, match=words):
        paired_blocks(student, FrozenTeacher(teacher), layers, INPUTS)


def test_heads_must_agree(bert):
    from tutelage.models.loading import load_network

    inputs = {name: one.clone() for name, one in INPUTS.items()}
    folder = bert()
    ours, theirs = (
        load_network(f"transformers:{folder},pretrained=false,layers=2,heads={heads}", num_classes=2, in_channels=0)
        for heads in (2, 4)
    )
    with pytest.raises(UserError, match=r"in the student is 2 heads of 3 x 3 tokens, .* in the teacher 4 heads"):
        paired_blocks(ours, FrozenTeacher(theirs), "auto", inputs)


def test_networks_without_attention_and_several_teachers_are_refused():
    images = torch.randn(2, 3, 12, 16)
    with pytest.raises(UserError, match="In the student: ToyNetwork computes no attention that can be read"):
        paired_blocks(ToyNetwork(), FrozenTeacher(ToyNetwork()), "auto", images)
    with pytest.raises(NoLayersError):
        paired_blocks(network(), EnsembleTeacher([FrozenTeacher(network()), FrozenTeacher(network())]), "auto", INPUTS)


def test_a_student_starts_as_the_blocks_that_teach_it():
    student, teacher = network(2), network(4, seed=1)
    pairs = paired_blocks(student, FrozenTeacher(teacher), "layers.0:layers.2+layers.1:layers.3", INPUTS)
    start_as_teacher(student, teacher, pairs, INPUTS)
    theirs = teacher.state_dict()
    for name, value in student.state_dict().items():
        source = name.replace("layers.0", "layers.2").replace("layers.1", "layers.3")
        assert torch.equal(value, theirs[source]), name
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_a_classifier_that_does_not_fit_stays_and_so_does_a_student_as_deep_as_its_teacher():
    student, teacher = network(2), network(4, seed=1)
    teacher.classifier = nn.Linear(6, 3)
    own = student.classifier.weight.clone()
    pairs = paired_blocks(student, FrozenTeacher(teacher), "auto", INPUTS)
    start_as_teacher(student, teacher, pairs, INPUTS)
    assert torch.equal(student.classifier.weight, own)
    assert torch.equal(student.embeddings.weight, teacher.embeddings.weight)
    twin = network(2)
    before = {name: value.clone() for name, value in twin.state_dict().items()}
    teacher = network(2, seed=1)
    start_as_teacher(twin, teacher, paired_blocks(twin, FrozenTeacher(teacher), "auto", INPUTS), INPUTS)
    assert all(torch.equal(value, before[name]) for name, value in twin.state_dict().items())


def test_blocks_of_other_parts_cannot_be_taken_over():
    student, teacher = network(2), network(4)
    student.layers[1].dense[0] = nn.Linear(6, 6, bias=False)
    teacher.layers[3].dense[0] = nn.Linear(6, 5)
    teacher.layers[3].dense[1] = nn.Sequential(nn.ReLU(), nn.Linear(5, 6))
    pairs = paired_blocks(student, FrozenTeacher(teacher), "auto", INPUTS)
    with pytest.raises(UserError, match=r"layers\.1\.dense\.0\.weight has no equal in the teacher's layers"):
        start_as_teacher(student, teacher, pairs, INPUTS)


class Causal(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.words = nn.ModuleList([nn.Identity()]), nn.Embedding(6, 4)
        self.layers[0].forward = lambda x: nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)

    def forward(self, input_ids, attention_mask):
        return self.layers[0](self.words(input_ids)).mean(1)


def test_a_first_token_that_sees_nothing_is_refused():
    check_first_token(network(), INPUTS)
    with pytest.raises(UserError, match=r"In Causal the first token sees no other token.*--cosine-weight 0"):
        check_first_token(Causal(), INPUTS)
