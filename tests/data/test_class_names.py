import datasets
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset, random_split
from torchvision.datasets import ImageFolder

from tutelage.data.class_names import are_names, listed, names_of, renumbered, tell_twins
from tutelage.errors import Notice, UserError

LABELS = torch.tensor([0, 1, 2, -1])


class Named(Dataset):
    def __init__(self, *classes):
        self.classes = list(classes)

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return torch.zeros(1, 2, 2), index % len(self.classes)


def test_datasets_that_say_what_their_classes_are_called(tmp_path):
    named = Named("ant", "bee")
    for dataset in (named, Subset(named, [1, 2]), random_split(named, [4, 2])[0], DataLoader(named, batch_size=2)):
        assert names_of(dataset) == ("ant", "bee")
    assert names_of(ConcatDataset([named, Named("ant", "bee")])) == ("ant", "bee")
    assert names_of(Named(("tench", "Tinca tinca"), ("goldfish",))) == ("tench, Tinca tinca", "goldfish")
    for name in ("cat", "ant"):
        (tmp_path / name).mkdir()
        Image.new("L", (2, 2)).save(tmp_path / name / "1.png")
    assert names_of(ImageFolder(tmp_path)) == ("ant", "cat")


def test_tables_say_it_in_the_column_of_their_labels():
    label = datasets.ClassLabel(names=["ant", "bee"])
    features = datasets.Features({"image": datasets.Value("string"), "label": label})
    rows = datasets.Dataset.from_dict({"image": ["a", "b"], "label": [0, 1]}, features=features)
    assert names_of(rows) == ("ant", "bee")
    assert names_of(rows.cast_column("label", datasets.Value("int64"))) is None


@pytest.mark.parametrize("dataset", [TensorDataset(LABELS), Named(), Named(1, 2), Named("ant", "ant"), [1, 2]])
def test_datasets_that_do_not_say_it(dataset):
    assert names_of(dataset) is None


def test_parts_that_number_their_classes_differently_are_refused():
    with pytest.raises(UserError, match="differently: ant, bee; bee, ant"):
        names_of(ConcatDataset([Named("ant", "bee"), Named("bee", "ant")]))


def test_labels_by_name():
    assert renumbered(LABELS, ["cat", "ant", "bee"], ["ant", "bee", "cat"], where="x").tolist() == [2, 0, 1, -1]
    assert renumbered(LABELS[:2], ["cat", "bee", "dog"], ["ant", "bee", "cat"], where="x").tolist() == [2, 1]
    with pytest.raises(UserError, match="Sample 2 of x has the class 'dog', which training does not.*ant, bee, cat"):
        renumbered(LABELS, ["cat", "bee", "dog"], ["ant", "bee", "cat"], where="x")
    with pytest.raises(UserError, match="Sample 2 of x has the label 2, but its class names go from 0 to 1"):
        renumbered(LABELS, ["cat", "bee"], ["ant", "bee", "cat"], where="x")


@pytest.mark.parametrize(
    ("classes", "named"),
    [
        (("ant", "bee"), True),
        (("7", "500"), True),
        (("1", "2", "3"), True),
        (("0", "1", "2"), False),
        (("label 0", "label 1"), False),
        (("label",), False),
        ((), False),
    ],
)
def test_positions_are_no_names(classes, named):
    assert are_names(classes) is named


def test_many_names_are_cut():
    assert listed(["a"] * 9) == "a, a, a, a, a, a, a, a and 1 more"


@pytest.mark.parametrize(
    ("one", "other"),
    [("Ant", "ant"), ("fire ant", "fire-ant"), ("\u00e9t\u00e9", "e\u0301te\u0301"), ("bee", "bee ")],
)
def test_classes_that_look_the_same_are_told(one, other):
    with pytest.warns(Notice, match="photos has the classes .* differ only in upper case, spaces or") as told:
        tell_twins([one, "cat", other], where="photos")
    assert len(told) == 1


def test_classes_that_look_different_are_not_told():
    tell_twins(["ant", "ants", "aunt", "1", "10", "\u00e9te", "ete"], where="photos")
