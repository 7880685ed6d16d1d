"""The layout: each folder imports only from those above it, nothing in a circle, and the tests mirror the package."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tutelage"
# From the ground up. Folders of one row know nothing of each other, and the report knows nothing of methods.
FLOORS = [
    {"errors", "losses", "version"},
    {"system"},
    {"data"},
    {"models"},
    {"features"},
    {"core"},
    {"evaluation"},
    {"tasks"},
    {"training", "report", "synthesis"},
    {"recording"},
    {"methods"},
    {"experiments"},
    {"exporting", "searching"},
    {"api"},
    {"cli"},
    {"testing"},
    {"__init__", "__main__"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
BESIDE = {(folder, "report") for folder in ("recording", "methods", "experiments", "searching")}

ELSEWHERE = {
    "__init__.py": "names only",
    "__main__.py": "one call",
    "version.py": "one constant",
    "api/progress.py": "one choice, tested with every call",
    "api/searching.py": "tested with the search: tests/searching/test_search.py",
    "api/synthesis.py": "tested with what it writes: tests/cli/test_synthetic.py",
    "cli/demo.py": "one comparison, run by `make demo`",
    "cli/commands.py": "tested through the command line: tests/cli, tests/test_documentation.py",
    "cli/flags.py": "as commands.py",
    "cli/parser.py": "as commands.py",
    "cli/requests.py": "as commands.py",
    "data/map_format.py": "a record, tested with those who fill it: tests/data/test_depth_maps.py, test_map_folders.py",
    "cli/synthetic.py": "as commands.py",
    "data/offers.py": "constants, tested with what reads them: tests/core/test_registry.py",
    "experiments/catalogue.py": "tested with what it lists: tests/core/test_registry.py",
    "methods/parts/papers.py": "constants, tested in tests/methods",
    "models/zoo/units.py": "layers, tested with the networks made of them",
    "searching/candidate.py": "tested with the score that reads it: tests/searching/scores/test_diswot.py",
    "searching/course.py": "tested with the search: tests/searching/test_search.py",
    "searching/scores/depth.py": "tested with the other sizes: tests/searching/scores/test_parameters.py",
    "searching/scores/multiply_adds.py": "as depth.py",
    "searching/settings.py": "as course.py",
    "searching/teaching.py": "as course.py",
    "training/state.py": "what the driver keeps, tested in tests/training/test_driver.py",
}
FOLDERS = {
    "experiments/doctor": "tested through `tutelage doctor`: tests/experiments/doctor/test_page.py",
    "report": "tested through the report: tests/report",
    "testing": "the conformance suite, run over every method in tests/conformance",
}

FILES = [path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))]
MODULES = {".".join(("tutelage", *file.with_suffix("").parts)).removesuffix(".__init__"): file for file in FILES}


def imports(file):
    """Return every module of the package that a file imports: at the top, late, or for its types alone."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / file).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tutelage":
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in whole}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "tutelage"}
    return found


def folder_of(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_run_upwards_only(file):
    here = file.parts[0] if len(file.parts) > 1 else file.stem
    for module in imports(file):
        there = folder_of(module)
        assert FLOOR[there] < FLOOR[here] or there == here or {here, there} <= FLOORS[0], f"{here} imports {module}"
        assert (here, there) not in BESIDE, f"{here} imports {module}"


def test_no_import_runs_in_a_circle():
    wanted = {
        module: {name for name in imports(file) if name in MODULES} - {module} for module, file in MODULES.items()
    }
    needed_by = defaultdict(set)
    for module, others in wanted.items():
        for other in others:
            needed_by[other].add(module)
    # Whatever needs nothing that is left goes, until nothing goes any more.
    free = [module for module, others in wanted.items() if not others]
    while free:
        gone = free.pop()
        del wanted[gone]
        for module in needed_by[gone]:
            wanted[module].discard(gone)
            if not wanted[module]:
                free.append(module)
    assert not wanted, f"these import each other, directly or not: {sorted(wanted)}"


def test_folders_are_two_deep_at_most_and_the_root_holds_five_files():
    assert {file.name for file in FILES if len(file.parts) == 1} == {
        "__init__.py",
        "__main__.py",
        "errors.py",
        "losses.py",
        "version.py",
    }
    assert max(len(file.parts) for file in FILES) <= 3


def is_tested_elsewhere(file):
    return file.name in ELSEWHERE or file.as_posix() in ELSEWHERE or any(Path(name) in file.parents for name in FOLDERS)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_file_has_its_tests(file):
    folder = ROOT / "tests" / file.parent
    found = [folder / f"test_{file.stem}.py", *folder.glob(f"test_{file.stem}_*.py")]
    assert is_tested_elsewhere(file) or any(path.exists() for path in found)


def test_exceptions_name_what_is_there():
    there = {file.name for file in FILES} | {file.as_posix() for file in FILES}
    assert set(ELSEWHERE) <= there
    assert all((PACKAGE / name).is_dir() for name in FOLDERS)


# What trains, compares and reports knows no method, task or kind of teacher by name.
NAMELESS = [
    "training/driver.py",
    "training/run.py",
    "training/state.py",
    "training/dry_run.py",
    "experiments/comparison.py",
    "experiments/experiment.py",
    "experiments/rows.py",
    *(file.as_posix() for file in FILES if file.parts[0] == "report" and file.name != "classification.py"),
]
# Comparisons that were written before tasks and plain rows said so themselves are read by these.
OLD_COMPARISONS = {"report/measured.py": {"classification"}, "report/rows.py": {"supervised"}}


@pytest.mark.parametrize("name", NAMELESS)
def test_nothing_above_the_methods_and_tasks_knows_one_by_name(name):
    from tutelage.core import teachers
    from tutelage.data.task import TASKS
    from tutelage.experiments import catalogue

    kinds = {kind for kind in vars(teachers) if kind.endswith("Teacher") and kind != "Teacher"}
    forbidden = {*catalogue.names(), *TASKS} - OLD_COMPARISONS.get(name, set())
    for node in ast.walk(ast.parse((PACKAGE / name).read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert node.value not in forbidden, f"line {node.lineno} names {node.value}"
        if isinstance(node, ast.Name) and node.id in kinds:
            raise AssertionError(f"line {node.lineno} names {node.id}")
