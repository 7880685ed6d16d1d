"""What starting costs: which packages are imported by `import tutelage`, by each quick command, and by first use."""

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import tutelage
import tutelage.data

ROOT = Path(__file__).parents[1]

# The list leaves out what an interpreter of this environment imports before anything is asked of it.
PACKAGES = """
import contextlib, io, json, sys
before = set(sys.modules)
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    {code}
print(json.dumps(sorted(set(sys.modules) - before)))
"""
COMMAND = "from tutelage.cli.main import main; main({words})"
# The console, the flags, the docstrings.
CONSOLE = {"tutelage", "rich"}
FLAGS = {"docstring_parser", "jsonargparse", "typeshed_client", "typing_extensions", "yaml", "cython_runtime"}
# Whatever reads data, draws, or measures, and is imported when it is used.
LATE = {"datasets", "lightning", "lightning_fabric", "matplotlib", "pandas", "pyarrow", "scipy", "sklearn", "timm"}
LATE |= {"tensorboard", "tokenizers", "torchmetrics", "torchvision", "transformers"}


def modules_after(code):
    """Return the modules that some code imports in a fresh interpreter."""
    ran = subprocess.run(
        [sys.executable, "-c", PACKAGES.format(code=code)], capture_output=True, text=True, check=True, timeout=120
    )
    return set(json.loads(ran.stdout))


def packages(modules):
    """Return the names of packages beside the standard library, and without private modules of compiled ones."""
    names = {name.partition(".")[0] for name in modules}
    return {name for name in names if not name.startswith("_")} - set(sys.stdlib_module_names)


def test_importing_tutelage_imports_nothing_else():
    assert packages(modules_after("import tutelage")) == {"tutelage"}


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        ([], CONSOLE),
        (["--help"], CONSOLE),
        (["--version"], CONSOLE),
        (["methods"], CONSOLE | FLAGS),
        (["methods", "--help"], CONSOLE | FLAGS),
        (["cite"], CONSOLE | FLAGS),
        (["cite", "kd", "tf-kd-reg"], CONSOLE | FLAGS),
        (["cite", "--help"], CONSOLE | FLAGS),
        (["distil"], CONSOLE),
        (["cite", "kdd"], CONSOLE | FLAGS),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_quick_commands_do_not_wait_for_torch(words, allowed):
    found = packages(modules_after(COMMAND.format(words=words)))
    assert "torch" not in found
    assert found <= allowed


def test_all_names_together_import_only_what_every_training_needs():
    use = "import tutelage.cli.commands\n    for name in tutelage.__all__: getattr(tutelage, name)"
    found, torch_alone = modules_after(use), modules_after("import torch")
    assert "torch" in found
    assert not packages(found) & LATE
    # Torch's exporter, compilers and counters of operations are imported when they are used, too.
    own = {name for name in found - torch_alone if name.partition(".")[0] in ("torch", "triton")}
    assert own == set()


@pytest.mark.parametrize("package", [tutelage, tutelage.data], ids=lambda package: package.__name__)
class TestLazyNames:
    def test_names_for_type_checkers_are_those_that_are_imported(self, package):
        tree = ast.parse(Path(package.__file__).read_text())
        (guarded,) = (node for node in tree.body if isinstance(node, ast.If) and "not" not in ast.unparse(node.test))
        told = {node.module: [alias.name for alias in node.names] for node in guarded.body}
        assert told == package._HOMES

    def test_every_public_name_is_there_and_is_that_of_its_module(self, package):
        homes = {name: module for module, names in package._HOMES.items() for name in names}
        assert set(package.__all__) == {*homes} | ({"__version__"} & {*package.__all__})
        for name, module in homes.items():
            assert getattr(package, name) is getattr(import_module(module), name)
        assert set(package.__all__) <= set(dir(package))


def test_folders_are_there_without_an_import_of_their_own():
    code = "import tutelage; assert callable(tutelage.losses.kd_loss) and tutelage.methods.at.AT"
    assert "tutelage.methods.at" in modules_after(code)
