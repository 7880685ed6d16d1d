"""The report names no task, and nothing that is one task's alone."""

import ast
import re
from pathlib import Path

import pytest

REPORT = Path(__file__).parents[2] / "tutelage" / "report"
# The file of pictures of each task, and the charts that it alone draws.
OWN = {"classification.py", "reliability.py", "similarity.py", "uncertainty.py"}
OWN |= {"segmentation.py", "class_scores.py", "grid.py", "strips.py", "depth.py", "depth_strips.py", "discovery.py"}


def texts(file):
    """Return the texts of a module without its docstrings, or a whole page."""
    if file.suffix != ".py":
        return [file.read_text()]
    tree = ast.parse(file.read_text())
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    documented = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, kinds)}
    found = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [text for text in found if isinstance(text, str) and text not in documented]


@pytest.mark.parametrize(
    "file",
    [path for path in sorted(REPORT.rglob("*.*")) if path.suffix in {".py", ".html"} and path.name not in OWN],
    ids=lambda path: path.name,
)
def test_the_report_knows_no_task(file):
    told = r"(?i)accuracy|\bnll\b|\bece\b|_nll|_ece|\bin points|^ ?points|\bhighest is best\b|\bcorrect\b|\bimages?\b"
    assert [text for text in texts(file) if re.search(told, text)] == []
    assert not re.search(r"\b100(\.0)? ?\*|[*/] ?100(\.0)?\b", file.read_text())
