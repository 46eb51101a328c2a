"""How far a search is survives the trip to disk, and its files have the documented names."""

import pytest

from seqjax.artifacts.search_files import Outcome, SearchFiles, SearchState, load_state, save_state
from seqjax.errors import ArtifactError


def test_names(tmp_path):
    files = SearchFiles(tmp_path, "s", tmp_path / "configs")
    assert files.config("s-run-3") == tmp_path / "configs/s-run-3.yaml"
    assert files.state == tmp_path / "configs/s-search.json"
    assert files.summary("csv") == tmp_path / "outputs/hyperparameter_search/s.csv"


def test_state_is_read_back_equal(tmp_path):
    outcomes = {
        0: Outcome(
            run=0, combination=7, status="complete", best_validation_loss=0.1, seconds=1.5, models=("a",)
        ),
        12: Outcome(run=12, combination=3, status="failed", reason="no\nmemory", seconds=0),
    }
    state = SearchState(config={"seed": 1, "x": [None, 1e-5]}, metadata_sha256="ab", outcomes=outcomes)
    path = tmp_path / "new" / "s.json"
    assert load_state(path) is None
    save_state(path, state)
    assert load_state(path) == state


@pytest.mark.parametrize("text", ["", "[]", '{"config": {}}', "\xff", None])
def test_damaged_state_is_explained(tmp_path, text):
    path = tmp_path / "s.json"
    if text is None:
        path.mkdir()
    else:
        path.write_text(text, encoding="latin-1")
    with pytest.raises(ArtifactError, match=r"s\.json does not hold the state of a search"):
        load_state(path)
