"""`replacing` leaves the whole new thing or the whole old one."""

from pathlib import Path

import pytest

from seqjax.artifacts import atomic
from seqjax.artifacts.atomic import replacing, write_text
from seqjax.errors import ArtifactError


def _fill(path: Path, folder: bool, text: str) -> None:
    if folder:
        path.mkdir()
        (path / "inner").mkdir()
        (path / "inner" / "file").write_text(text)
    else:
        path.write_text(text)


def _text(path: Path) -> str:
    return (path / "inner" / "file" if path.is_dir() else path).read_text()


def _write_and_fail(path: Path, folder: bool) -> None:
    with replacing(path) as temporary:
        _fill(temporary, folder, "new")
        raise KeyboardInterrupt


@pytest.fixture(params=["exchanged in one step", "moved aside"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systems that can exchange two paths in one step, and others."""
    if request.param == "moved aside":
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize(
    ("old", "new"),
    [("nothing", "file"), ("nothing", "folder"), ("file", "file"), ("file", "folder"), ("folder", "folder")],
)
class TestReplacing:
    def test_success_replaces_all(self, tmp_path: Path, old: str, new: str) -> None:
        path = tmp_path / "deep" / "name.ext"
        if old != "nothing":
            path.parent.mkdir()
            _fill(path, old == "folder", "old")
        if old == "folder":
            (path / "stale").write_text("old")
        with replacing(path) as temporary:
            assert temporary.parent == path.parent
            _fill(temporary, new == "folder", "new")
            assert old == "nothing" or _text(path) == "old"
        assert _text(path) == "new"
        assert not (path / "stale").exists()
        assert list(path.parent.iterdir()) == [path]

    def test_failure_leaves_the_old(self, tmp_path: Path, old: str, new: str) -> None:
        path = tmp_path / "name.ext"
        if old != "nothing":
            _fill(path, old == "folder", "old")
        with pytest.raises(KeyboardInterrupt):
            _write_and_fail(path, new == "folder")
        assert list(tmp_path.iterdir()) == ([] if old == "nothing" else [path])
        assert old == "nothing" or _text(path) == "old"


@pytest.mark.usefixtures("system")
def test_a_file_does_not_replace_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "name.json"
    _fill(path, True, "someone's")
    with pytest.raises(ArtifactError, match=r"name\.json is to be written as a file, but is a folder\."):
        write_text(path, "new")
    assert _text(path) == "someone's"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_fails(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "name"):
        pass
    assert not list(tmp_path.iterdir())


def test_text_is_utf_8(tmp_path: Path) -> None:
    write_text(tmp_path / "x.json", "é")
    assert (tmp_path / "x.json").read_bytes() == b"\xc3\xa9"


def test_what_a_kill_left_aside_is_moved_back(tmp_path: Path) -> None:
    path = tmp_path / "name"
    _fill(path, True, "old")
    aside = atomic._sibling(path, "old")
    path.rename(aside)
    neighbour = atomic._sibling(tmp_path / "nam", "old")
    _fill(neighbour, True, "another's")
    with pytest.raises(KeyboardInterrupt):
        _write_and_fail(path, True)
    assert _text(path) == "old"
    assert sorted(tmp_path.iterdir()) == sorted([path, neighbour])


def test_linux_exchanges_in_one_step(tmp_path: Path) -> None:
    _fill(tmp_path / "a", True, "a")
    _fill(tmp_path / "b", False, "b")
    if not atomic._exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this system cannot exchange two paths")
    assert (_text(tmp_path / "a"), _text(tmp_path / "b")) == ("b", "a")
