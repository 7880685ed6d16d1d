import pytest

from tutelage.core.registry import Paper
from tutelage.experiments import catalogue
from tutelage.methods.parts import papers

PAPERS = [value for value in vars(papers).values() if isinstance(value, Paper)]


def test_the_shared_papers():
    assert [(paper.arxiv, paper.year) for paper in PAPERS] == [
        ("1910.05057", 2021),
        ("1905.00076", 2020),
        ("2112.01528", 2022),
        ("1503.02531", 2015),
        ("1512.00567", 2016),
        (None, 2024),
        ("1909.11723", 2020),
        ("2108.08536", 2021),
    ]


@pytest.mark.parametrize("entry", list(catalogue.entries()), ids=lambda entry: entry.name)
def test_every_method_cites_a_paper_that_can_be_found(entry):
    assert entry.papers
    for paper in entry.papers:
        assert paper.title
        assert paper.authors
        assert 1990 < paper.year < 2100
        assert str(paper.year) in paper.key


def test_a_key_names_one_paper():
    by_key = {}
    for entry in catalogue.entries():
        for paper in entry.papers:
            assert by_key.setdefault(paper.key, paper) == paper


@pytest.mark.parametrize("name", ["tf-kd-reg", "tf-kd-self", "re-kd", "de-kd", "matched-label-smoothing"])
def test_methods_of_the_tf_kd_paper_say_so(name):
    assert papers.TF_KD in catalogue.get(name).papers
