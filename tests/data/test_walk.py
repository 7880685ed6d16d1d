import pytest

from tutelage.data.walk import walk
from tutelage.errors import UserError


@pytest.fixture
def tree(tmp_path):
    for name in ("b/2.txt", "b/1.txt", "a/x/3.txt", "a.txt", ".git/config", "b/.cache/1.txt", "__MACOSX/b/1.txt"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(name)
    return tmp_path / "root"


def below(root):
    return [path[len(str(root)) + 1 :] for path in walk(root).below()]


def test_visible_files_in_the_order_of_their_paths(tree):
    assert below(tree) == ["a/x/3.txt", "a.txt", "b/1.txt", "b/2.txt"]
    relative = [path.relative_to(tree) for path in sorted(tree.rglob("*.txt"))]
    assert below(tree) == [str(path) for path in relative if not any(part[0] in "._" for part in path.parts)]


def test_a_file_is_alone_in_its_folder(tree):
    alone = walk(tree / "a.txt")
    assert (alone.path, alone.files, alone.folders) == (str(tree), [str(tree / "a.txt")], [])


def test_links_are_followed_once(tree, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "9.txt").write_text("9")
    (tree / "c").symlink_to(tmp_path / "far")
    (tree / "c" / "back").symlink_to(tree)
    assert below(tree)[-1] == "c/9.txt"
    (tree / "d").symlink_to(tree / "b")
    with pytest.raises(UserError, match=r"root/d and .*root/b are the same folder"):
        walk(tree)


def test_links_to_nothing_are_kept_apart(tree):
    (tree / "b" / "gone").symlink_to("nowhere")
    (tree / "b" / "self").symlink_to("self")
    found = walk(tree)
    assert [folder.dangling for folder in found.folders] == [[], [str(tree / "b" / "gone"), str(tree / "b" / "self")]]
    assert "b/gone" not in below(tree)
