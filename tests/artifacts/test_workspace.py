"""Work that is interrupted is kept, and taken up only where nothing has changed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from seqjax.artifacts import workspace as module
from seqjax.artifacts.workspace import Workspace, workspace
from seqjax.errors import ArtifactError, ConfigError


class Killed(BaseException):
    """Stands for a signal."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / ".work"


def _interrupted(
    folder: Path, fingerprint: dict[str, object], do: Callable[[Workspace], object] | None = None
) -> None:
    def run() -> None:
        with workspace(folder, fingerprint, resume=False) as work:
            work.write_note("far", 3)
            (do or (lambda work: None))(work)
            raise Killed

    with pytest.raises(Killed):
        run()


def test_work_is_taken_up_only_if_asked(folder: Path) -> None:
    _interrupted(folder, {"a": [1, 2]})
    with workspace(folder, {"a": [1, 2]}, resume=True) as work:
        assert work.resumed
        assert work.note("far") == 3
        assert work.note("other") is None
    assert not folder.exists()
    _interrupted(folder, {"a": 1})
    with workspace(folder, {"a": 2}, resume=False) as work:
        assert not work.resumed
        assert work.note("far") is None


def test_nothing_to_take_up_is_a_new_start(folder: Path) -> None:
    with workspace(folder, {}, resume=True) as work:
        assert not work.resumed


def test_changes_are_named(folder: Path) -> None:
    _interrupted(folder, {"seq_length": 4, "files": {"t.csv": "3 bytes"}, "same": None})
    with (
        pytest.raises(ConfigError) as caught,
        workspace(folder, {"seq_length": 5, "files": {"t.csv": "4 bytes"}, "same": None}, resume=True),
    ):
        pass
    said = str(caught.value)
    assert "seq_length: was 4 when the interrupted run began, and is 5 now." in said
    assert "files.t.csv: was '3 bytes'" in said
    assert "same" not in said
    with workspace(
        folder, {"seq_length": 4, "files": {"t.csv": "3 bytes"}, "same": None}, resume=True
    ) as work:
        assert work.note("far") == 3


def test_an_error_leaves_nothing(folder: Path) -> None:
    with pytest.raises(TypeError), workspace(folder, {}, resume=False) as work:
        work.write_note("no JSON", object())
    assert not folder.exists()


def test_two_runs_do_not_share_a_folder(folder: Path) -> None:
    with (
        workspace(folder, {}, resume=False),
        pytest.raises(ArtifactError, match=r"Another run is working in .*\.work"),
        workspace(folder, {}, resume=False),
    ):
        pass


def _results(work: Workspace, places: list[Path]) -> dict[Path, Path]:
    """A folder and a file that are ready."""
    staged = [work.folder / "one", work.folder / "two"]
    staged[0].mkdir()
    (staged[0] / "x").write_text("new")
    staged[1].write_text("new")
    return dict(zip(staged, places, strict=True))


def _old(tmp_path: Path) -> list[Path]:
    (tmp_path / "out" / "one").mkdir(parents=True)
    (tmp_path / "out" / "one" / "y").write_text("old")
    (tmp_path / "out" / "two").write_text("old")
    return [tmp_path / "out" / "one", tmp_path / "out" / "two"]


def _assert_new(tmp_path: Path) -> None:
    assert [file.name for file in (tmp_path / "out" / "one").iterdir()] == ["x"]
    assert (tmp_path / "out" / "two").read_text() == "new"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one", "two"]


def test_results_take_their_places(folder: Path, tmp_path: Path) -> None:
    with workspace(folder, {}, resume=False) as work:
        work.publish(_results(work, _old(tmp_path)))
    _assert_new(tmp_path)
    assert not folder.exists()


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("resume", [True, False])
def test_handing_over_is_completed_by_the_next_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, resume: bool
) -> None:
    places = _old(tmp_path)
    calls = iter(range(10))
    move_over = module.move_over

    def killed(source: Path, path: Path) -> None:
        if next(calls) == after:
            raise Killed
        move_over(source, path)

    monkeypatch.setattr(module, "move_over", killed)
    _interrupted(folder, {}, lambda work: work.publish(_results(work, places)))
    monkeypatch.setattr(module, "move_over", move_over)
    with workspace(folder, {"changed": 1}, resume=resume) as work:
        assert not work.resumed
        _assert_new(tmp_path)


def test_what_was_replaced_does_not_come_back(folder: Path, tmp_path: Path) -> None:
    places = _old(tmp_path)

    def publish(work: Workspace) -> None:
        results = _results(work, places)
        work.publish(results)
        # As if the program had been killed after the exchange and before the old folder was removed.
        next(iter(results)).mkdir()
        (next(iter(results)) / "y").write_text("old")

    _interrupted(folder, {}, publish)
    assert json.loads((folder / "publish.json").read_text())
    with workspace(folder, {}, resume=True):
        _assert_new(tmp_path)
