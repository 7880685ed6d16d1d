"""A teacher of other classes: the map is read, checked for completeness, and applied."""

import json

import pytest
import torch
from torch import nn

import tutelage
from tutelage.cli.main import main
from tutelage.core.teachers import BlackBoxTeacher, EnsembleTeacher, FrozenTeacher
from tutelage.core.teachers.class_map import ClassMap, ClassMapTeacher
from tutelage.core.teachers.naming import named_teacher
from tutelage.data.batch import Batch
from tutelage.data.dataset import Data
from tutelage.data.sources import load_data
from tutelage.errors import NoLayersError, UserError
from tutelage.methods.at import AT
from tutelage.methods.kd import KD
from tutelage.methods.simkd import SimKD
from tutelage.models.saving import save_network
from tutelage.recording.teacher import RecordedTeacher
from tutelage.testing.toys import SIZE, ToyNetwork, toy_data, toy_recording

THEIRS = ("tench", "tabby, tabby cat", "goldfish", "Egyptian cat", "crane", "beagle", "crane")
OURS = ("fish", "cat", "dog")
MAP = {"tench": "fish", "goldfish": "fish", "tabby, tabby cat": "cat", "Egyptian cat": "cat", "beagle": "dog"}
GROUPS = ((0, 2), (1, 3), (5,))


def read(given, theirs=THEIRS, ours=OURS):
    return ClassMap.read(given, teacher_names=theirs, data_names=ours)


def written(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("map.txt", "# fishes\n\n" + "\n".join(f"{a}->  {b}" for a, b in MAP.items())),
        ("map.json", json.dumps(MAP)),
        ("map.csv", "teacher,data\n" + "\n".join(f'"{a}",{b}' for a, b in MAP.items())),
        ("map.csv", "0,0\n2,0\n1,1\n3,cat\nbeagle,2\n"),
        ("map.json", '{"0": "fish", "2": 0, "1": "cat", "3": "cat", "5": "dog"}'),
    ],
)
def test_files_of_every_kind_say_the_same(name, text, tmp_path):
    file = written(tmp_path, name, text)
    assert read(file).groups == read(str(file)).groups == read(MAP).groups == GROUPS


def test_a_list_names_the_teachers_class_of_each_class_of_the_data(tmp_path):
    assert read(["goldfish", 3, "5"]).groups == ((2,), (3,), (5,))
    assert read(written(tmp_path, "map.json", '["goldfish", 3, 5]')).groups == ((2,), (3,), (5,))
    with pytest.raises(UserError, match="lists 2 classes of the teacher, and the data have 3"):
        read([1, 2])


def test_what_is_a_name_and_a_number_is_taken_for_a_name():
    """Digits whose names stand in another order."""
    assert read({"1": "1", "0": "0"}, theirs=("1", "0"), ours=("0", "1")).groups == ((1,), (0,))
    assert read({1: 1, 0: 0}, theirs=("1", "0"), ours=("0", "1")).groups == ((0,), (1,))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tench": "fish", "beagle": "dog"}, "no class of the teacher for cat: a student cannot learn them"),
        (MAP | {"tnech": "fish"}, "no class of the teacher named 'tnech'. Did you mean 'tench'"),
        (MAP | {"tench": "fsh"}, "no class of the data named 'fsh'. Did you mean 'fish'"),
        (MAP | {0: "cat"}, "lists the teacher's class 0 twice"),
        (MAP | {"crane": "dog"}, "2 classes of the teacher are named 'crane': give the number"),
        (MAP | {"7": "dog"}, "no class of the teacher named '7'"),
    ],
)
def test_a_map_that_is_none_is_refused_with_the_reason(given, message):
    with pytest.raises(UserError, match=message):
        read(given)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("map.txt", "tench fish\n", "is not a pair of classes. Write one line"),
        ("map.csv", "tench,fish,3\n", "is not a pair of classes"),
        ("map.txt", "", "nothing is not a pair"),
        ("map.json", "{", "is not valid JSON"),
        ("map.json", "3", "is not a class map"),
        ("map.json", '{"tench": "fish", "tench": "cat"}', "lists the teacher's class 'tench' twice"),
    ],
)
def test_a_file_that_is_none_is_refused_with_the_reason(name, text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read(written(tmp_path, name, text))
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "absent.txt")


def test_names_that_nobody_knows_need_numbers():
    assert read({0: "fish", "1": "cat", 9: "dog"}, theirs=()).groups == ((0,), (1,), (9,))
    with pytest.raises(UserError, match="names of the teacher's classes are not known: give the number of 'tench'"):
        read({"tench": "fish"}, theirs=())


def test_probabilities_of_several_classes_add_up():
    logits = torch.randn(4, 7, dtype=torch.float64)
    probability = logits.softmax(1)
    expected = torch.stack([probability[:, list(group)].sum(1) for group in GROUPS], 1)
    expected /= expected.sum(1, keepdim=True)
    assert torch.allclose(ClassMap(GROUPS)(logits).softmax(1), expected, rtol=1e-12)


def test_single_classes_are_picked_in_the_datas_order_with_every_place():
    logits = torch.randn(2, 7, 3, 4)
    assert torch.equal(ClassMap(((5,), (0,)))(logits), logits[:, [5, 0]])
    several = ClassMap(((5, 1), (0,)))(logits)
    assert torch.allclose(several[:, 0], torch.logsumexp(logits[:, [5, 1]], 1))
    with pytest.raises(UserError, match="lists the teacher's class 5, but the teacher returns shape"):
        ClassMap(((5,),))(torch.randn(2, 5))


EXAMPLE = torch.rand(2, 3, *SIZE)


def toy_of_nine(width):
    network = ToyNetwork(width)
    network.classifier = nn.Linear(2 * width, 9)
    return network


def test_a_mapped_teacher_answers_with_the_datas_classes_and_keeps_its_layers():
    wide = toy_of_nine(8)
    classes = ClassMap(tuple((number,) for number in (8, 0, 3, 2, 1, 7)))
    teacher = ClassMapTeacher(FrozenTeacher(wide), classes)
    inputs = torch.rand(5, 3, *SIZE)
    expected = wide(inputs)[:, [8, 0, 3, 2, 1, 7]].detach()
    assert torch.equal(teacher(Batch(inputs=inputs)).logits, expected)
    assert torch.equal(teacher.as_network()(inputs), expected)
    reader = teacher.reading(["layer1"], example=EXAMPLE)
    output = reader(Batch(inputs=inputs))
    assert torch.equal(output.logits, expected)
    assert reader.shapes == FrozenTeacher(wide).reading(["layer1"], example=EXAMPLE).shapes
    assert reader.reads() == ["layer1"]
    assert AT(ToyNetwork(4), teacher, EXAMPLE).losses(Batch(inputs=inputs, targets=torch.arange(5)))["attention"] > 0
    assert KD(ToyNetwork(4), teacher).losses(Batch(inputs=inputs, targets=torch.arange(5)))["kd"] > 0


def test_members_are_mapped_as_the_whole():
    pair = EnsembleTeacher([FrozenTeacher(toy_of_nine(4)) for _ in range(2)])
    output = ClassMapTeacher(pair, ClassMap(((8,), (2, 3))))(Batch(inputs=EXAMPLE))
    assert output.members.shape == (2, 2, 2)
    assert torch.allclose(output.members[:, :, 0], pair(Batch(inputs=EXAMPLE)).members[:, :, 8])


def test_a_method_that_takes_the_classifier_itself_is_refused():
    teacher = ClassMapTeacher(FrozenTeacher(toy_of_nine(8)), ClassMap(((8,), (0,))))
    with pytest.raises(NoLayersError, match="whose classifier has other classes than the data"):
        SimKD(ToyNetwork(4), teacher, EXAMPLE)
    with pytest.raises(UserError, match="record with --teacher-classes"):
        ClassMapTeacher(RecordedTeacher(toy_recording("full")), ClassMap(((0,),)))


def test_other_maps_are_other_teachers():
    network = FrozenTeacher(ToyNetwork(8))
    one, same, other = (ClassMapTeacher(network, ClassMap(groups)) for groups in (GROUPS, GROUPS, GROUPS[::-1]))
    assert one.identity() == same.identity() != other.identity()


def test_what_users_pass_is_mapped(tmp_path):
    data = toy_data()
    module = toy_of_nine(8)
    given = [8, 0, 3, 2, 1, 7]
    found = named_teacher(module, data, classes=given)
    assert [len(found.networks), len(found.classes)] == [1, 1]
    box = named_teacher(BlackBoxTeacher(module), data, classes=given).answers
    assert torch.equal(box(Batch(inputs=EXAMPLE)).logits, module.eval()(EXAMPLE)[:, given])
    with pytest.raises(UserError, match="A class map is for a teacher, but none is given"):
        named_teacher(None, data, classes=given)
    with pytest.raises(UserError, match="tiny_cnn is untrained"):
        named_teacher("tiny_cnn", data, classes=given)


class Wide(nn.Module):
    """Answers with twelve classes, of which ten are digits, in another order."""

    ORDER = (11, 3, 4, 0, 7, 8, 9, 10, 1, 2)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 12))

    def forward(self, inputs):
        return self.layers(inputs)


QUICK = {"epochs": 1, "batch_size": 32, "precision": "32-true", "progress": False, "device": "cpu"}


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", subset=150)


def test_a_teacher_of_other_classes_is_named_with_the_way_out_and_then_taught_by(digits, tmp_path):
    call = {"student": "tiny_cnn,width=3", "data": digits, "teacher": Wide(), **QUICK}
    with pytest.raises(UserError, match=r"\(2, 12\), but digits has 10 classes.*--teacher-classes FILE.*its layers"):
        tutelage.distill("kd", **call)
    tutelage.distill("kd", **call, teacher_classes=Wide.ORDER, out=tmp_path)
    content = json.loads((tmp_path / "comparison.json").read_text())
    batches = list(digits.loader("test", batch_size=64, train=False).epoch(0))
    said = Wide()(torch.cat([batch.inputs for batch in batches]))[:, Wide.ORDER].argmax(1)
    expected = (said == torch.cat([batch.labels for batch in batches])).double().mean()
    assert content["teacher"]["test_accuracy"] == pytest.approx(float(expected))


def test_the_command_line_knows_the_names_of_a_saved_teacher(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = [f"digit-{n}" for n in range(10)] + ["letter", "blank"]
    network = tutelage.load_network("tiny_cnn,width=4", num_classes=12, in_channels=1)
    save_network("teacher", network, spec=network.spec, num_classes=12, in_channels=1, class_names=names)
    (tmp_path / "map.txt").write_text("\n".join(f"digit-{n} -> {n}" for n in range(10)))
    common = ["--data", "digits", "--subset", "100", "--batch_size", "32", "--device", "cpu"]
    distill = ["distill", "kd", "--student", "tiny_cnn,width=3", "--epochs", "1", *common]
    assert main([*distill, "--teacher", "teacher", "--out", "plain"]) == 2
    assert "--teacher-classes FILE" in " ".join(capsys.readouterr().err.split())
    mapped = ["--teacher", "teacher", "--teacher-classes", "map.txt"]
    assert main([*distill, *mapped, "--out", "run"]) == 0
    said = capsys.readouterr()
    assert "10 classes of the teacher stand for the 10 of the data" in " ".join((said.out + said.err).split())
    assert main(["record", *common, *mapped, "--views", "1", "--out", "recording"]) == 0
    assert main([*distill, "--teacher", "recording:recording", "--out", "replayed"]) == 0
