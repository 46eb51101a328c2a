"""Runs that are stopped end as if they had not been; and the check would notice if they did not."""

import json
import shutil

from seqjax.artifacts.layout import Layout
from tools.stop_training import differences, finish, flips, main, write_project


def test_stopped_runs_end_equal_to_the_bit():
    assert main(["--stops", "2", "--flips", "20", "--epochs", "2", "--seed", "5"]) == 0


def test_a_run_of_two_processes_stops_and_goes_on_as_one():
    assert main(["--stops", "1", "--flips", "0", "--epochs", "2", "--processes", "2"]) == 0


def test_the_check_sees_another_loss_and_another_score(tmp_path):
    import random

    root, other = tmp_path / "project", tmp_path / "other"
    write_project(root, epochs=1)
    finish(root)
    assert flips(root, 5, random.Random(0)) == 0
    shutil.copytree(root, other)
    assert differences(root, other) == []
    log = Layout(other, "demo").json_log()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    batch = next(line for line in lines if line["event"] == "batch")
    batch["loss"] += 1e-16 + batch["loss"] * 1e-15
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert differences(root, other) == ["the log"]
