from pathlib import Path

import pytest

import tutelage
from tutelage.core.outline import outlines
from tutelage.core.registry import Paper, bibtex, by_family
from tutelage.experiments import catalogue

METHODS = Path(tutelage.__file__).parent / "methods"
SHOWN = ("name", "family", "papers", "summary", "title", "teacher", "sources", "fixtures")


def read(text, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(text, encoding="utf-8")
    return outlines([file])


def test_what_is_read_is_what_the_registry_knows():
    found = by_family(outlines([*METHODS.glob("*.py"), METHODS / "parts" / "papers.py"]))
    known = [entry for entry in catalogue.entries() if entry.build.__module__.startswith("tutelage.methods.")]
    assert len(found) > 40
    shown = [[{name: getattr(each, name) for name in SHOWN} for each in by_family(some)] for some in (found, known)]
    assert shown[0] == shown[1]
    assert bibtex(found) == bibtex(by_family(known))


MINE = '''
from nowhere import at_all
MINE = Paper(key="k", title="T – ü", authors="A", venue="V", year=2024)

@register("mine", papers=[MINE], family="logits", reads=whatever())
class Mine(Method):
    """Mine alone: all of it."""

    def __init__(self, student, teacher, *, beta: float = at_all.BETA):
        super().__init__()

@other
@register("recipe", papers=[MINE, MINE])
def recipe(run, make_teacher, /, data): ...

def neither(): ...
'''


def test_nothing_of_a_file_is_run(tmp_path):
    mine, recipe = read(MINE, tmp_path)
    paper = Paper(key="k", title="T – ü", authors="A", venue="V", year=2024)
    assert (mine.name, mine.family, mine.papers) == ("mine", "logits", (paper,))
    assert (mine.summary, mine.title, mine.teacher) == ("Mine alone: all of it", "Mine alone", "trained")
    assert (recipe.name, recipe.family, recipe.papers) == ("recipe", "other", (paper, paper))
    assert (recipe.title, recipe.teacher) == ("recipe", "trained in the run")
    assert recipe.fixtures == {"run", "make_teacher", "data"}
    with pytest.raises(NotImplementedError, match="Mine was only read"):
        mine.build()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("[MINE]", "[ELSEWHERE]", "line 5: ELSEWHERE is no constant made by Paper"),
        ("[MINE]", "[*SOME]", "is no constant"),
        ("[MINE]", "PAPERS", "line 5: not written as @register"),
        ('"mine"', "NAME", "not written as @register"),
        ('"logits"', "FAMILY", "malformed node"),
        ("2024", "YEAR", "malformed node"),
        ("__init__", "build", "line 6: Mine has no __init__ of its own"),
    ],
)
def test_what_cannot_be_read_is_refused(old, new, why, tmp_path):
    with pytest.raises(ValueError, match=why):
        read(MINE.replace(old, new), tmp_path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(OSError, match="gone"):
        outlines([tmp_path / "gone.py"])
