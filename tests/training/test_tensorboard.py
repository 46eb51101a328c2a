"""Event files, read back record by record: every scalar at its step, and each step once."""

from contextlib import closing

import pytest

from seqjax.errors import MissingPackageError
from seqjax.training import tensorboard as module
from seqjax.training.evaluate import Evaluation
from seqjax.training.events import BatchEvent, EpochEvent, ResumeEvent
from seqjax.training.objective import Losses
from seqjax.training.tensorboard import TensorBoardLog, require_tensorboard
from tests.event_files import scalars

pytest.importorskip("tensorboardX", reason="the tensorboard extra is not installed")

BATCHES = 4


def batch(epoch, number, loss, *, count=2):
    losses = Losses({"item": loss, "price": 0.5}, {"item": 1.0, "price": 2.0})
    return BatchEvent(epoch, number, BATCHES, count, losses, 0.01, 0.5, 16)


def validation(epoch, loss):
    losses = Losses({"item": loss, "price": 0.5}, {"item": 1.0, "price": 2.0})
    metrics = {"item": {"perplexity": loss * 2}, "price": {"mae": 3.0}}
    return EpochEvent(epoch, Evaluation(losses, {}, metrics), 0.01, 1.0)


def write(folder, *events):
    with closing(TensorBoardLog(folder, BATCHES, lambda: 2**20)) as hook:
        for event in events:
            hook(event)


def test_scalars_stand_at_the_number_of_batches(tmp_path):
    write(tmp_path / "run", validation(0, 3.0), batch(1, 2, 2.0), batch(1, 4, 1.5), validation(1, 1.25))
    found = scalars(tmp_path / "run")
    assert found["train/loss", 2] == [3.0]
    assert found["train/loss/item", 4] == [1.5]
    assert found["train/weighted_loss/price", 4] == [1.0]
    assert found["train/learning_rate", 2] == pytest.approx([0.01])
    assert found["train/samples_per_second", 2] == [32.0]
    assert found["train/memory_bytes", 2] == [2**20]
    assert [step for tag, step in found if tag == "validation/loss"] == [0, 4]
    assert found["validation/perplexity/item", 4] == [2.5]
    assert found["validation/mae/price", 4] == [3.0]
    assert ("train/weighted_loss/item", 4) not in found


def test_a_resumed_run_goes_on_without_doubled_steps(tmp_path):
    before = [validation(0, 3.0), batch(1, 2, 2.0), batch(1, 4, 1.5), validation(1, 1.25)]
    write(tmp_path, *before, batch(2, 2, 7.0), batch(2, 4, 7.0), validation(2, 7.0))
    write(tmp_path, ResumeEvent(2, 0, BATCHES), batch(2, 2, 1.0), batch(2, 4, 0.5), validation(2, 7.0))
    write(tmp_path, ResumeEvent(2, 2, BATCHES), batch(2, 4, 0.5), validation(2, 0.25), batch(3, 2, 0.25))
    found = scalars(tmp_path)
    assert {len(values) for values in found.values()} == {1}
    assert [found["train/loss/item", step][0] for step in (2, 4, 6, 8, 10)] == [2.0, 1.5, 1.0, 0.5, 0.25]
    assert [found["validation/loss/item", step][0] for step in (0, 4, 8)] == [3.0, 1.25, 0.25]


def test_a_run_that_is_taken_back_goes_on_without_doubled_steps(tmp_path):
    back = ResumeEvent(2, 0, BATCHES)
    write(tmp_path, batch(1, 4, 1.5), validation(1, 1.25), batch(2, 2, 7.0), back, batch(2, 2, 1.0))
    found = scalars(tmp_path)
    assert {len(values) for values in found.values()} == {1}
    assert found["train/loss/item", 6] == [1.0]


def test_what_is_written_is_on_disk_at_once(tmp_path):
    with closing(TensorBoardLog(tmp_path, BATCHES, int)) as hook:
        hook(batch(1, 2, 2.0))
        assert scalars(tmp_path)["train/loss", 2] == [3.0]


def test_what_a_killed_process_left_half_written_does_no_harm(tmp_path):
    write(tmp_path, validation(0, 3.0), batch(1, 2, 2.0))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes() + b"\x30\0\0\0\0\0\0\0half")
    write(tmp_path, ResumeEvent(1, 2, BATCHES), batch(1, 4, 1.5))
    assert [step for tag, step in scalars(tmp_path) if tag == "train/loss"] == [2, 4]


def test_a_run_that_starts_anew_takes_nothing_over(tmp_path):
    write(tmp_path, validation(0, 3.0), batch(1, 2, 2.0))
    write(tmp_path, validation(0, 5.0))
    assert {step for _, step in scalars(tmp_path)} == {0}
    assert scalars(tmp_path)["validation/loss/item", 0] == [5.0]


def test_a_run_without_events_leaves_no_file(tmp_path):
    write(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_tensorboardx_the_error_says_what_to_install(monkeypatch):
    require_tensorboard()
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r'log_to.*tensorboardX.*"seqjax\[tensorboard\]"'):
        require_tensorboard()
