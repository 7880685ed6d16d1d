"""The tests mirror the package: whoever changes a file knows where its tests are."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "__init__.py": "names only",
    "__main__.py": "one call",
    "version.py": "one constant",
    "papers.py": "constants, tested in tests/methods",
    "units.py": "layers, tested with the networks made of them",
    "demo.py": "one comparison, run by `make demo`",
    "testing.py": "the conformance suite, run over every method in tests/conformance",
    "trials.py": "as testing.py",
    "toys.py": "as testing.py",
    "arguments.py": "tested through the command line: test_cli_errors.py, test_documentation.py",
    "flags.py": "as arguments.py",
    "groups.py": "as arguments.py",
    "state.py": "what the driver keeps, tested in test_driver.py",
}
FOLDERS = {
    "preflight": "tested through `tutelage doctor`: test_doctor.py",
    "report": "tested through the report: tests/report",
}


def is_tested_elsewhere(file):
    return file.name in ELSEWHERE or file.parts[0] in FOLDERS


FILES = [path.relative_to(ROOT / "tutelage") for path in sorted((ROOT / "tutelage").rglob("*.py"))]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_file_has_its_tests(file):
    folder = ROOT / "tests" / file.parent
    found = [folder / f"test_{file.stem}.py", *folder.glob(f"test_{file.stem}_*.py")]
    assert is_tested_elsewhere(file) or any(path.exists() for path in found)


def test_exceptions_name_what_is_there():
    assert set(ELSEWHERE) <= {file.name for file in FILES}
    assert set(FOLDERS) <= {file.parts[0] for file in FILES}
