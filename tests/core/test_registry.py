import inspect
import re
from types import SimpleNamespace
from typing import get_args

import pytest

from tutelage.core import registry
from tutelage.core.method import Method
from tutelage.core.registry import Family, Paper, by_family, register
from tutelage.data.offers import EVERYTHING, Offer
from tutelage.errors import UserError
from tutelage.experiments import catalogue

PAPER = Paper(key="me2024mine", title="Mine", authors="Me", venue="Journal", year=2024)


@pytest.fixture
def entries(monkeypatch):
    """A copy of the registry that a test may add to."""
    catalogue.names()
    copy = dict(registry.REGISTERED)
    monkeypatch.setattr(registry, "REGISTERED", copy)
    return copy


@pytest.fixture
def each():
    return list(catalogue.entries())


class Mine(Method):
    """Mine alone.

    More of it.
    """

    def __init__(self, student, teacher, num_classes, *, beta: float = 2.0):
        super().__init__()


def test_methods_of_the_paper_are_known():
    names = catalogue.names()
    assert names == [entry.name for entry in catalogue.entries()]
    expected = {"supervised", "kd", "re-kd", "de-kd", "tf-kd-self", "tf-kd-reg", "label-smoothing"}
    assert expected <= set(names)


def test_entry_tells_fixtures_from_hyper_parameters(entries):
    assert register("mine", papers=[PAPER])(Mine) is Mine
    entry = catalogue.get("mine")
    assert entry.fixtures == {"student", "teacher", "num_classes"}
    assert entry.hyper_parameters == {"beta": 2.0}
    assert entry.needs_teacher
    assert not entry.is_recipe
    assert entry.title == "Mine alone"
    assert entry.trains == "student"
    assert entry.papers == (PAPER,)


def test_recipes_take_the_run():
    recipes = {entry.name for entry in catalogue.entries() if entry.is_recipe}
    assert {"tf-kd-self", "re-kd", "de-kd", "born-again", "tolerant-teacher"} <= recipes
    assert not recipes & {"kd", "supervised", "tf-kd-reg"}


def test_who_needs_a_teacher():
    needing = {entry.name for entry in catalogue.entries() if entry.needs_teacher}
    assert {"kd", "re-kd", "de-kd", "supervised-teacher", "kd-shuffled-teacher"} <= needing
    assert not needing & {"supervised", "tf-kd-reg", "tf-kd-self", "kd-uniform-teacher", "label-smoothing"}


def test_a_wrapper_has_the_teacher_of_its_method():
    words = {name: catalogue.get(name).teacher for name in ("soft-randomization", "messy-collaboration")}
    assert set(words.values()) == {"as its method"}
    assert catalogue.get("fickle-teacher").teacher == "trained"
    assert all(
        catalogue.get(name).needs_teacher and catalogue.get(name).is_recipe for name in (*words, "fickle-teacher")
    )


def test_who_trains_the_teacher():
    assert {entry.name for entry in catalogue.entries() if entry.trains == "teacher"} >= {"re-kd", "supervised-teacher"}


def test_each_network_has_its_plain_training():
    plain = {entry.name: entry.trains for entry in catalogue.entries() if entry.plain}
    assert plain == {"supervised": "student", "supervised-teacher": "teacher"}


def test_a_name_is_taken_once(entries):
    register("mine", papers=[PAPER])(Mine)
    register("mine", papers=[PAPER])(Mine)
    with pytest.raises(ValueError, match="'mine' is already registered"):
        register("mine", papers=[PAPER])(lambda student: None)


def test_unknown_name_with_the_nearest():
    with pytest.raises(UserError, match=r"no method named 'tf-kd-regg'.*Did you mean 'tf-kd-reg'"):
        catalogue.get("tf-kd-regg")


def test_import_path():
    entry = catalogue.get("tutelage.methods.born_again:BornAgain")
    assert entry.name == "tutelage.methods.born_again:BornAgain"
    assert entry.papers == ()
    assert entry.fixtures == {"student", "teacher"}


def test_import_path_of_a_known_method_is_that_method():
    assert catalogue.get("tutelage.methods.kd:KD") is catalogue.get("kd")


@pytest.mark.parametrize("path", ["nowhere.at_all:Thing", "tutelage.methods.kd:Nothing", ":KD", ".kd:KD"])
def test_import_path_that_leads_nowhere(path):
    with pytest.raises(UserError, match="cannot be imported.*package.module:Class"):
        catalogue.get(path)


def test_import_path_of_what_is_no_method():
    with pytest.raises(UserError, match="'math:pi' is a float"):
        catalogue.get("math:pi")


def test_installed_packages_add_methods(entries, monkeypatch):
    loaded = []

    def load():
        loaded.append(True)
        return register("from-elsewhere", papers=[PAPER])(Mine)

    def points(*, group):
        assert group == "tutelage.methods"
        return [SimpleNamespace(load=load)]

    monkeypatch.setattr(catalogue, "entry_points", points)
    assert "from-elsewhere" in catalogue.names()
    assert catalogue.get("from-elsewhere").build is Mine
    assert loaded


def test_cite_names_each_paper_once():
    text = catalogue.cite(["kd", "kd-uniform-teacher", "tf-kd-reg", "tf-kd-self", "label-smoothing"])
    keys = re.findall(r"@\w+\{([^,]+),", text)
    assert sorted(keys) == ["hinton2015distilling", "sun2024logit", "szegedy2016rethinking", "yuan2020revisiting"]


def test_bibtex():
    text = Paper(key="k1", title="On X", authors="A and B", venue="Conf", year=2020, arxiv="1.2").bibtex
    assert text == (
        "@inproceedings{k1,\n  title = {{On X}},\n  author = {A and B},\n  booktitle = {Conf},\n  year = {2020},\n"
        "  eprint = {1.2},\n  archivePrefix = {arXiv}\n}"
    )
    assert Paper(key="k", title="T", authors="A", venue="arXiv preprint", year=2020).bibtex.startswith("@article{k,")


def test_every_docstring_says_equation_paper_and_differences(each):
    lacking = {
        entry.name: [
            part for part in ("$$", "\nPaper: ", "\nDifferences: ") if part not in (inspect.getdoc(entry.build) or "")
        ]
        for entry in each
    }
    assert {name: parts for name, parts in lacking.items() if parts} == {}


def test_every_docstring_explains_every_hyper_parameter(each):
    lacking = [
        f"{entry.name}: {name}"
        for entry in each
        for name in entry.hyper_parameters
        if f"\n    {name}: " not in (inspect.getdoc(entry.build) or "")
    ]
    assert lacking == []


def test_every_name_is_kebab_case_and_every_hyper_parameter_has_a_default(each):
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", entry.name) for entry in each)
    assert not [e.name for e in each if inspect.Parameter.empty in e.hyper_parameters.values()]


def test_methods_are_listed_family_by_family():
    listed = by_family(catalogue.entries())
    assert {entry.name for entry in listed} == set(catalogue.names())
    families = [entry.family for entry in listed]
    assert list(dict.fromkeys(families)) == list(get_args(Family))
    assert families == sorted(families, key=list(dict.fromkeys(families)).index)


def build_with_options(student, *, standardize: bool = False, variant: str = "paper", alpha: float = 0.0):
    """Build."""


def test_options_may_need_more_of_the_data(entries):
    beside = {"standardize": {"classes"}, "variant=code": {"labels"}, "alpha": {"answers", "images"}}
    register("mine", papers=[PAPER], reads={"targets"}, uses={"images"}, reads_if=beside)(build_with_options)
    entry = catalogue.get("mine")
    assert entry.reads_with() == entry.reads == {"targets"}
    assert entry.uses == {"images"}
    assert entry.reads_with({"standardize": True}) == {"targets", "classes"}
    assert entry.reads_with({"variant": "code", "alpha": 0.5}) == {"targets", "labels", "answers", "images"}
    assert entry.reads_with({"variant": "paper", "alpha": 0.0}) == {"targets"}


def test_a_method_of_another_package_takes_labelled_images_unless_it_says_less(entries):
    register("mine", papers=[PAPER])(Mine)
    assert catalogue.get("mine").reads == EVERYTHING


def test_what_methods_read_and_use_is_known_and_apart(each):
    for entry in each:
        assert entry.reads | entry.uses <= set(get_args(Offer)), entry.name
        assert not entry.reads & entry.uses, entry.name
        for setting in entry.reads_if:
            name, _, value = setting.partition("=")
            assert name in entry.hyper_parameters, entry.name
            assert (
                not value
                or value in str(inspect.signature(entry.build))
                or value in str(vars(inspect.getmodule(entry.build)))
            ), setting
