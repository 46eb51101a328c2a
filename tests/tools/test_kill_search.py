"""A search that is killed ends as if nothing had happened; and the check would notice if it did not."""

import json
from pathlib import Path

from tools.kill_search import NAME, faults, trial


def test_nothing_is_trained_twice(tmp_path: Path) -> None:
    wrong, _ = trial(tmp_path, kills=1, seed=5)
    assert wrong == []


def test_the_check(tmp_path: Path) -> None:
    (tmp_path / "outputs/hyperparameter_search").mkdir(parents=True)
    (tmp_path / "logs").mkdir()
    row = {"run": "s-run-0", "status": "complete", "last_epoch": 1, "best_validation_loss": 0.5}
    report = tmp_path / f"outputs/hyperparameter_search/{NAME}.json"
    report.write_text(json.dumps({"runs": [row]}))
    log = tmp_path / "logs/sequifier-s-run-0-rank0.jsonl"
    end = json.dumps({"event": "standing", "finished": True})
    lines = [json.dumps({"event": "validation", "epoch": epoch}) for epoch in (0, 1)]
    log.write_text("\n".join([*lines, end]))
    expected = [("s-run-0", "complete", 1, 0.5)]
    assert faults(tmp_path, expected) == []
    log.write_text("\n".join([lines[0], *lines, end]))
    assert faults(tmp_path, expected) == []
    log.write_text("\n".join([*lines, lines[1], end, end]))
    assert faults(tmp_path, expected) == [
        "s-run-0 was trained for the epochs [0, 1, 1]",
        "s-run-0 was trained to its end 2 times",
    ]
    log.write_text("\n".join([*lines, end]))
    report.write_text(json.dumps({"runs": [{**row, "best_validation_loss": 0.5000001}]}))
    assert faults(tmp_path, expected) == []
    report.write_text(json.dumps({"runs": [{**row, "best_validation_loss": 0.6}]}))
    assert "the ranking is" in faults(tmp_path, expected)[0]
