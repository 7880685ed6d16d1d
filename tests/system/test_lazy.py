import sys

import pytest

from tutelage.system.lazy import lazy


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of which one module says when it is run, and another cannot be run."""
    folder = tmp_path / "lazily"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from tutelage.system.lazy import lazy\n"
        "ran = []\n"
        "__getattr__, __dir__ = lazy(__name__, {'lazily.made': ['one', 'two'], 'lazily.broken': ['three']})\n"
    )
    (folder / "made.py").write_text("import lazily\nlazily.ran.append('made')\none, two = object(), object()\n")
    (folder / "broken.py").write_text("import nowhere_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("lazily")
    for name in [name for name in sys.modules if name.partition(".")[0] == "lazily"]:
        del sys.modules[name]


def test_a_module_is_run_when_one_of_its_names_is_asked_for(package):
    assert package.ran == []
    assert package.one is package.one
    assert package.ran == ["made"]
    assert vars(package)["one"] is sys.modules["lazily.made"].one


def test_names_are_imported_from_the_package_as_ever(package):
    from lazily import two

    assert two is sys.modules["lazily.made"].two


def test_its_modules_are_there_without_importing_them(package):
    assert package.made.two is package.two


def test_all_names_are_listed_before_they_are_imported(package):
    assert {"one", "two", "three", "ran", "__name__"} <= set(dir(package))
    assert package.ran == []


@pytest.mark.parametrize("name", ["four", "_private", "__wrapped__"])
def test_what_is_not_there_is_an_attribute_error(package, name):
    with pytest.raises(AttributeError, match=f"module 'lazily' has no attribute '{name}'"):
        getattr(package, name)
    assert not hasattr(package, name)


def test_a_module_that_cannot_be_imported_says_why(package):
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        package.three  # noqa: B018
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        package.broken  # noqa: B018


def test_a_name_that_its_module_lacks_is_an_attribute_error():
    get, _ = lazy("tutelage.system", {"tutelage.system.lazy": ["lacking"]})
    with pytest.raises(AttributeError, match="lacking"):
        get("lacking")
