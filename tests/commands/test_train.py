import copy
import json
import os
import signal

import jax
import numpy as np
import polars as pl
import pytest

import seqjax.commands.train_run as command
from seqjax.artifacts.checkpoints import load_info, load_tree
from seqjax.artifacts.layout import Layout, Place
from seqjax.commands.train import train
from seqjax.config.base import validate
from seqjax.config.metadata import Metadata, Statistics
from seqjax.config.resolve import load_metadata, resolve_schema
from seqjax.config.train import TrainConfig
from seqjax.errors import ArtifactError, ConfigError, DataError, MissingPackageError, TrainingError
from seqjax.model.functional import abstract
from seqjax.optim.optimizers import build_optimizer
from seqjax.stopping import Stopped
from seqjax.training import tensorboard
from seqjax.training.events import BatchEvent
from seqjax.training.feed import ResidentFeed
from seqjax.training.logs import TextLog
from seqjax.training.step import new_state
from tests.event_files import scalars
from tools.run_logs import told_last

LENGTH = 5


pytestmark = pytest.mark.usefixtures("compile_once")


def long_format(columns, count):
    """A window at every row, as preprocess writes them: a line a window and column, oldest slot first."""
    return pl.DataFrame(
        [
            {
                "sequenceId": start,
                "subsequenceId": 0,
                "startItemPosition": start,
                "inputCol": name,
                **{str(LENGTH - slot): values[start + slot] for slot in range(LENGTH + 1)},
            }
            for start in range(count)
            for name, values in columns.items()
        ]
    )


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Two splits of windows with their metadata; exporting only notes what it was given."""
    rng = np.random.default_rng(0)
    for split, count in ((0, 30), (1, 11)):
        rows = count + LENGTH
        columns = {"item": rng.integers(2, 5, rows).astype(float), "price": rng.normal(size=rows)}
        (tmp_path / "data").mkdir(exist_ok=True)
        long_format(columns, count).write_parquet(tmp_path / f"data/d-split{split}.parquet")
    metadata = Metadata(
        n_classes={"item": 5},
        id_maps={"item": {"a": 2, "b": 3, "c": 4}},
        split_paths=["data/d-split0.parquet", "data/d-split1.parquet"],
        column_types={"item": "Int64", "price": "Float64"},
        selected_columns_statistics={"price": Statistics(std=2.5, mean=0.0)},
        seq_length=LENGTH,
        write_format="parquet",
        padding="null",
    )
    (tmp_path / "m.json").write_text(metadata.model_dump_json())
    exported = []

    def export(layout, *, which, epoch, card, **rest):
        path = layout.model(which, epoch)
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{which} {card.best_epoch}")
        exported.append({"which": which, "epoch": epoch, "card": card, **rest})
        return [path]

    monkeypatch.setattr(command, "export_models", export)
    return tmp_path, exported


def config(root, **changes):
    values = {
        "project_root": str(root),
        "metadata_config_path": "m.json",
        "model_name": "demo",
        "target_columns": ["item", "price"],
        "target_column_types": {"item": "categorical", "price": "real"},
        "seq_length": LENGTH - 1,
        "inference_batch_size": 4,
        "export_generative_model": True,
        "export_embedding_model": False,
        "model_spec": {
            "initial_embedding_dim": 4,
            "feature_embedding_dims": {"item": 3, "price": 1},
            "dim_model": 4,
            "n_head": 1,
            "dim_feedforward": 4,
            "num_layers": 1,
        },
        "training_spec": {
            "device": "cpu",
            "epochs": 4,
            "save_interval_epochs": 2,
            "batch_size": 4,
            "learning_rate": 0.01,
            "criterion": {"item": "CrossEntropyLoss", "price": "MSELoss"},
            "scheduler": {"name": "ExponentialLR", "gamma": 0.9},
            "dropout": 0.1,
            "log_interval": 3,
            "class_share_log_columns": ["item"],
        },
    }
    values = copy.deepcopy(values)
    training = changes.pop("training", {})
    values["training_spec"] |= training
    return validate(TrainConfig, values | changes, "train.yaml")


def checkpoint(root, settings, epoch):
    """The state and the best parameters of a checkpoint."""
    path = Layout(root, settings.model_name).checkpoint(epoch)
    info = load_info(path)
    schema = resolve_schema(settings, load_metadata(root / "m.json"))
    _, shapes = abstract(schema, settings.model_spec)
    optimizer = build_optimizer(settings.training_spec.optimizer)
    return load_tree(path, jax.eval_shape(lambda p: (new_state(p, optimizer), p), shapes)), info


def events(root, kind):
    lines = (root / "logs/sequifier-demo-rank0.jsonl").read_text().splitlines()
    return [values for values in map(json.loads, lines) if values["event"] == kind]


def test_a_run_leaves_models_checkpoints_and_logs(project):
    root, exported = project
    result = train(config(root))
    assert result.last_epoch == 4
    assert list(result.baselines) == [
        *("last value", "marginal", "first-order Markov", "best of each target")
    ]
    assert min(result.baselines.values()) == result.baselines["best of each target"]
    assert Layout(root, "demo").saved() == [Place(2), Place(4)]
    validations = [event["loss"] for event in events(root, "validation")]
    assert len(validations) == 5
    assert result.best_validation_loss == min(validations[1:])
    assert validations.index(result.best_validation_loss) == result.best_epoch
    assert result.best[0].name == "sequifier-demo-best-4.onnx"
    assert result.last[0].name == "sequifier-demo-last-4.onnx"
    assert exported[0]["card"].best_epoch == result.best_epoch
    assert exported[0]["sample"].columns["item"].shape == (4, LENGTH)
    text = (root / "logs/sequifier-demo-rank0-3.txt").read_text()
    assert "| INFO | [INFO] Epoch   1 | Batch     3/    8 | Loss: " in text
    assert text.count("[INFO] Validation | Epoch: ") == 5
    assert "[INFO] item: " in text
    rates = [event["learning_rate"] for event in events(root, "validation")]
    assert rates == pytest.approx([0.01, 0.01, 0.009, 0.0081, 0.00729], rel=1e-6)


def test_metrics_are_logged_in_the_units_of_the_table(project):
    root, _ = project
    train(config(root, training={"epochs": 1}))
    (baselines,) = events(root, "baselines")
    for found in [*events(root, "validation"), baselines["marginal"], baselines["last value"]]:
        losses, metrics = found["losses"], found["metrics"]
        assert metrics["item"]["perplexity"] == pytest.approx(np.exp(losses["item"]["loss"]), rel=1e-5)
        assert metrics["price"]["rmse"] == pytest.approx(2.5 * losses["price"]["loss"] ** 0.5, rel=1e-5)
        assert list(metrics["item"]) == ["perplexity", "top_1_accuracy", "top_3_accuracy"]
    assert list(baselines["velocity"]["losses"]) == ["price"]
    assert baselines["velocity"]["loss"] is None
    assert list(baselines["second-order Markov"]["losses"]) == ["item"]
    text = (root / "logs/sequifier-demo-rank0-3.txt").read_text()
    assert text.count("[INFO]  - the baseline is the best one: ") == 2
    assert text.count("[INFO] Metrics of price | mae ") == 2
    assert "[INFO] Baseline metrics of item | last value: perplexity " in text


def test_a_resumed_run_is_the_uninterrupted_one_bit_by_bit(project):
    root, _ = project
    whole = train(config(root, model_name="whole"))
    train(config(root, training={"epochs": 2}))
    resumed = train(config(root))
    assert (resumed.best_epoch, resumed.best_validation_loss) == (
        whole.best_epoch,
        whole.best_validation_loss,
    )
    settings = config(root)
    found, expected = checkpoint(root, settings, 4), checkpoint(root, config(root, model_name="whole"), 4)
    jax.tree.map(np.testing.assert_array_equal, found[0], expected[0])
    assert found[1]["stale"] == expected[1]["stale"]
    # Epoch 0 is evaluated once, and no epoch is trained twice.
    assert [event["epoch"] for event in events(root, "validation")] == [0, 1, 2, 3, 4]


def test_a_damaged_newest_checkpoint_is_passed_over(project):
    root, _ = project
    train(config(root, model_name="whole", training={"save_interval_epochs": 1}))
    train(config(root, training={"epochs": 3, "save_interval_epochs": 1, "keep_checkpoints": 2}))
    layout = Layout(root, "demo")
    assert layout.saved() == [Place(2), Place(3)]
    damaged = max(layout.checkpoint(3).rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    settings = config(root, training={"save_interval_epochs": 1})
    train(settings)
    assert "epoch-3 is damaged" in (root / "logs/sequifier-demo-rank0-3.txt").read_text()
    assert layout.saved() == [Place(2), Place(3), Place(4)]
    found, expected = (
        checkpoint(root, settings, 4),
        checkpoint(root, settings.model_copy(update={"model_name": "whole"}), 4),
    )
    jax.tree.map(np.testing.assert_array_equal, found[0], expected[0])


def test_a_finished_run_says_so_and_exports_only_what_is_missing(project):
    root, exported = project
    first = train(config(root))
    count = len(exported)
    again = train(config(root))
    assert (again.best, again.last, again.best_epoch) == (first.best, first.last, first.best_epoch)
    assert len(exported) == count
    assert "demo is trained already: 4 epochs" in (root / "logs/sequifier-demo-rank0-3.txt").read_text()
    first.best[0].unlink()
    train(config(root))
    assert [call["which"] for call in exported[count:]] == ["best"]


def test_another_configuration_is_refused_with_what_differs(project):
    root, _ = project
    train(config(root, training={"epochs": 2}))
    with pytest.raises(ArtifactError, match="set continue_training: false to start anew") as error:
        train(config(root, seed=3, training={"learning_rate": 0.5, "log_interval": 1}))
    changes = [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]]
    assert changes == ["seed", "training_spec.learning_rate"]
    with pytest.raises(ArtifactError, match=r"training_spec.epochs: was '2 done', is 1"):
        train(config(root, training={"epochs": 1}))


def test_a_run_goes_on_with_another_log_and_without_what_it_started_from(project):
    pytest.importorskip("tensorboardX")
    root, _ = project
    train(config(root, model_name="first", training={"epochs": 1}))
    train(config(root, training={"epochs": 2, "warm_start": "checkpoints/first/epoch-1"}))
    changed = {"epochs": 3, "log_to": ["tensorboard"], "warm_start_strict": False}
    assert train(config(root, training=changed)).last_epoch == 3
    assert any((root / "logs/tensorboard/demo").iterdir())


def test_starting_anew_leaves_no_older_checkpoint_to_continue_from(project):
    root, _ = project
    train(config(root))
    train(config(root, seed=5, training={"epochs": 2, "continue_training": False}))
    assert Layout(root, "demo").saved() == [Place(2)]
    assert train(config(root, seed=5, training={"epochs": 3})).last_epoch == 3


@pytest.mark.parametrize(("epoch", "place"), [(1, Place(0, 3)), (3, Place(2, 3))])
def test_a_signal_saves_in_the_middle_of_an_epoch(project, monkeypatch, epoch, place):
    """The run goes on to the same end; of what its log tells twice, the last counts."""
    root, _ = project
    train(config(root, model_name="whole"))
    text_log = TextLog.__call__

    def interrupt(self, event):
        text_log(self, event)
        if isinstance(event, BatchEvent) and event.epoch == epoch:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(TextLog, "__call__", interrupt)
        with pytest.raises(Stopped):
            train(config(root))
    saved = Layout(root, "demo").saved()[-1]
    assert saved.epoch == place.epoch
    assert saved.batch >= place.batch
    with (root / "logs/sequifier-demo-rank0.jsonl").open("a") as log:
        place = {"epoch": saved.epoch + 1, "batch": 99, "from": "what ran on until it was killed"}
        log.write(json.dumps({"event": "batch", **place}) + "\n")
    train(config(root))
    found, expected = checkpoint(root, config(root), 4), checkpoint(root, config(root, model_name="whole"), 4)
    jax.tree.map(np.testing.assert_array_equal, found[0], expected[0])
    assert losses(root, "demo") == losses(root, "whole")


def losses(root, model):
    """What the log of a run tells, times apart."""
    return told_last(root / f"logs/sequifier-{model}-rank0.jsonl")


def test_saves_at_intervals_change_nothing(project):
    root, _ = project
    train(config(root, model_name="whole"))
    train(
        config(
            root, training={"save_interval_steps": 3, "save_interval_minutes": 1e-9, "keep_checkpoints": None}
        )
    )
    saved = Layout(root, "demo").saved()
    assert {Place(0, 3), Place(0, 6), Place(1, 1), Place(2), Place(4)} <= set(saved)
    assert losses(root, "demo") == losses(root, "whole")


def test_batches_are_halved_where_memory_is_short(project, monkeypatch):
    root, _ = project
    whole = train(config(root, model_name="whole", training={"dropout": 0.0}))
    failures, fold = iter([2, 1]), ResidentFeed.fold

    def short_of_memory(self, step, **how):
        compiled = fold(self, step, **how)
        if "build_step" not in step.__qualname__:  # An evaluation.
            return compiled
        count = next(failures, 0)

        def run(carry, constants, order, begin, end):
            nonlocal count
            count -= 1
            if count == 0:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.")
            return compiled(carry, constants, order, begin, end)

        return run

    monkeypatch.setattr(ResidentFeed, "fold", short_of_memory)
    result = train(config(root, training={"dropout": 0.0}))
    assert result.best_validation_loss == pytest.approx(whole.best_validation_loss, rel=1e-5)
    text = (root / "logs/sequifier-demo-rank0-3.txt").read_text()
    assert text.count("each batch is computed in 4 parts") == 1
    assert [event["epoch"] for event in events(root, "validation")] == [0, 1, 2, 3, 4]
    failures = iter([1] * 4)
    with pytest.raises(TrainingError, match="too little memory for batches of 4 windows in 4 parts"):
        train(config(root, model_name="small", training={"dropout": 0.0}))


def test_a_run_that_diverges_exports_nothing(project):
    root, exported = project
    with pytest.raises(TrainingError, match=r"at step \d: epoch 1.* windows: sequence \d+ items \d+ to \d+;"):
        train(config(root, training={"learning_rate": 1e30}))
    assert exported == []
    assert not Layout(root, "demo").saved()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"training_data_path": "data/none.parquet"}, DataError, "none.parquet does not exist"),
        ({"seq_length": 9}, ConfigError, "seq_length: must be at most"),
        ({"n_classes": {"item": 3}}, DataError, "holds id 4"),
        (
            {
                "training": {
                    "scheduler": {"name": "OneCycleLR", "max_lr": 0.1, "total_steps": 20},
                    "scheduler_step_on": "batch",
                }
            },
            ConfigError,
            "4 epochs of 8 batches make 32; set total_steps: 32",
        ),
    ],
)
def test_what_cannot_be_trained_is_explained_before_training(project, changes, error, message):
    root, exported = project
    with pytest.raises(error, match=message):
        train(config(root, **changes))
    assert exported == []


def test_event_files_tell_what_the_json_lines_tell_with_each_step_once(project):
    pytest.importorskip("tensorboardX", reason="the tensorboard extra is not installed")
    root, _ = project
    train(config(root, training={"epochs": 1, "save_interval_epochs": 1, "log_to": ["tensorboard"]}))
    train(config(root, training={"epochs": 2, "save_interval_epochs": 1, "log_to": ["tensorboard"]}))
    found = scalars(root / "logs/tensorboard/demo")
    assert {len(values) for values in found.values()} == {1}
    losses = {8 * event["epoch"]: event["loss"] for event in events(root, "validation")}
    assert {step: found["validation/loss", step][0] for step in (0, 8, 16)} == pytest.approx(losses)
    rates = {8 * (event["epoch"] - 1) + event["batch"]: event for event in events(root, "batch")}
    assert sorted(rates) == [3, 6, 8, 11, 14, 16]
    for step, event in rates.items():
        assert found["train/loss/price", step] == pytest.approx([event["losses"]["price"]["loss"]])
        assert event["memory_bytes"] > 0
    assert found["validation/rmse/price", 16][0] > 0


def test_a_sink_that_is_not_installed_is_refused_before_anything_is_done(project, monkeypatch):
    root, _ = project
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"seqjax\[tensorboard\]"):
        train(config(root, training={"log_to": ["tensorboard"]}))
    assert not (root / "logs").exists()


def test_the_log_names_the_classes_whose_shares_it_tells(project):
    root, _ = project
    train(config(root, training={"epochs": 1}))
    (start,) = events(root, "start")
    assert start["labels"] == {"item": ["unknown", "other", "a", "b", "c"]}
    assert len(events(root, "validation")[0]["shares"]["item"]) == 5
