import random

import pytest

from tutelage.searching.evolution import PATIENCE, Evolution
from tutelage.searching.examining import Result
from tutelage.searching.space import Space


def evolution(text="tiny_cnn,a=1..9,b=1..9,c=1..9", *, seed=0, **settings):
    defaults = {"candidates": 60, "population": 8, "children": 4, "mutations": 2}
    return Evolution(space=Space.parse(text), chance=random.Random(seed), **{**defaults, **settings})


def by(rule):
    """Return an examination by a rule from the values of the options to a score or None."""

    def examine(wanted):
        values = ([gene + 1 for gene in genes[1:]] for genes in wanted)
        scores = [rule(*each) for each in values]
        outcome = {True: "over the limits", False: "scored"}
        return [Result(network=str(g), outcome=outcome[s is None], score=s) for g, s in zip(wanted, scores)]

    return examine


def total(*values):
    return float(sum(values))


def test_so_many_are_scored_and_none_twice():
    found = evolution()
    found.run(by(total))
    assert len(found.scored) == 60
    assert len({genes for genes, _ in found.results}) == 60
    assert found.results[0][0] == found.space.smallest()


def test_it_finds_better_ones_than_chance():
    best, by_chance = [], []
    for seed in range(5):
        found = evolution(seed=seed)
        found.run(by(total))
        best.append(max(result.score for _, result in found.scored))
        chance = random.Random(seed)
        by_chance.append(max(sum(chance.randint(1, 9) for _ in range(3)) for _ in range(60)))
    assert sum(best) > sum(by_chance)
    assert min(best) >= 24


def test_the_course_depends_on_the_seed_alone():
    courses = []
    for seed in (0, 0, 1):
        found = evolution(seed=seed)
        found.run(by(total))
        courses.append([genes for genes, _ in found.results])
    assert courses[0] == courses[1] != courses[2]


def test_a_small_space_is_seen_whole():
    found = evolution("tiny_cnn,a=1..3,b=1..4")
    found.run(by(total))
    assert {genes for genes, _ in found.results} == set(found.space.all())


def test_what_is_over_the_limits_does_not_count():
    found = evolution()
    found.run(by(lambda a, b, c: None if a + b + c > 12 else float(a + b + c)))
    assert len(found.scored) == 60
    assert len(found.results) > 60


def test_a_space_of_which_little_is_allowed_is_still_searched():
    # One network in 40 or so: by chance alone, 60 would take 2,400.
    found = evolution("tiny_cnn,a=1..30,b=1..30,c=1..30")
    found.run(by(lambda a, b, c: None if a * b * c > 150 else float(a * b * c)))
    assert len(found.scored) == 60
    assert len(found.results) < 1000


@pytest.mark.parametrize("children", [1, 4])
def test_it_ends_where_nothing_can_be_scored(children):
    found = evolution(children=children)
    found.run(by(lambda a, b, c: None))
    assert found.scored == []
    assert PATIENCE <= len(found.results) <= PATIENCE + children
