"""A search trains its candidates once each, goes on where it was, survives failures, and ranks the rest."""

import csv
import json
from collections import Counter

import jax
import numpy as np
import optuna
import pytest

import seqjax.commands.hyperparameter_search as search_command
import seqjax.commands.search_engines as search_engines
from seqjax.artifacts.layout import Layout, Place
from seqjax.artifacts.search_files import load_state
from seqjax.commands.hyperparameter_search import hyperparameter_search
from seqjax.commands.train_run import Saver, TrainResult
from seqjax.config.load import load_config
from seqjax.config.train import TrainConfig
from seqjax.errors import ArtifactError, ConfigError, DataError, TrainingError
from seqjax.sweep.summary import LOSS
from tests.commands.test_train import LENGTH, long_format
from tests.searches import METADATA, search

pytestmark = pytest.mark.usefixtures("compile_once", "compile_fast")


@pytest.fixture
def project(tmp_path):
    """Two splits of windows with their metadata."""
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for split, count in ((0, 30), (1, 11)):
        rows = count + LENGTH
        columns = {"item": rng.integers(2, 5, rows).astype(float), "price": rng.normal(size=rows)}
        long_format(columns, count).write_parquet(tmp_path / f"data/d-split{split}.parquet")
    (tmp_path / "m.json").write_text(METADATA.model_dump_json())
    return tmp_path


class Trainer:
    """Stands in for training: a loss that the settings decide, and whatever should go wrong."""

    def __init__(self):
        self.trained = []
        self.failures = {}

    def __call__(self, task):
        config = task.config
        self.trained.append(config)
        failures = self.failures.get(config.model_name, [])
        if failures:
            raise failures.pop(0)
        loss = 1 / config.model_spec.num_layers + config.training_spec.dropout
        return TrainResult((), (), 1, loss, config.training_spec.epochs, {})

    @property
    def names(self):
        """The runs that were trained, in order."""
        return [config.model_name for config in self.trained]


@pytest.fixture
def trainer(monkeypatch):
    """What replaces training."""
    stand_in = Trainer()
    monkeypatch.setattr(search_engines, "train_until", stand_in)
    return stand_in


LAYERS = {"num_layers": [1, 2, 3]}


def out_of_memory():
    return jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.")


@pytest.mark.parametrize("engine", ["sequential", "vmap"])
def test_a_real_search_is_interrupted_and_continued(project, monkeypatch, engine):
    """Models are trained and exported; in the middle, all is interrupted."""
    rates = {"learning_rate": [0.01, 0.02], "epochs": [2, 2]}
    export = {"export_onnx": False, "export_pt": True}
    config = search({}, rates, engine=engine, project_root=str(project), **export)
    saved = Saver._save
    interrupts = iter([False, False, True])

    def save_and_interrupt(saver, standing):
        saved(saver, standing)
        if next(interrupts, False):
            raise KeyboardInterrupt

    monkeypatch.setattr(Saver, "_save", save_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        hyperparameter_search(config)
    rows = hyperparameter_search(config)
    assert sorted(str(row["run"]) for row in rows) == ["demo-run-0", "demo-run-1"]
    for run in range(2):
        # No epoch was trained again, or at least there is no trace of it.
        lines = (project / f"logs/sequifier-demo-run-{run}-rank0.jsonl").read_text().splitlines()
        found = [event["epoch"] for event in map(json.loads, lines) if event["event"] == "validation"]
        assert found == [0, 1, 2]
        assert (project / f"models/sequifier-demo-run-{run}-best-2.pt").is_file()
        assert Layout(project, f"demo-run-{run}").saved() == [Place(1), Place(2)]
        written = load_config(TrainConfig, project / f"configs/hp_search/demo-run-{run}.yaml")
        assert written.training_spec.learning_rate == rates["learning_rate"][run]
    losses = [row["best_validation_loss"] for row in rows]
    assert losses == sorted(losses)
    assert "demo-run-1: " in (project / "logs/sequifier-demo-rank0-3.txt").read_text()


def test_the_summary_is_ranked_and_holds_what_was_varied(project, trainer):
    trainer.failures["demo-run-1"] = [TrainingError("The loss is not finite.")]
    config = search(LAYERS, {"dropout": [0.0, 0.25]}, project_root=str(project))
    rows = hyperparameter_search(config)
    assert trainer.names == [f"demo-run-{run}" for run in range(6)]
    assert [row["run"] for row in rows] == [f"demo-run-{run}" for run in (2, 5, 4, 0, 3, 1)]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5, None]
    assert (rows[-1]["status"], rows[-1]["reason"]) == ("failed", "The loss is not finite.")
    folder = project / "outputs/hyperparameter_search"
    read = list(csv.DictReader((folder / "demo.csv").read_text().splitlines()))
    assert [(row["run"], row["num_layers"], row["dropout"]) for row in read[:2]] == [
        ("demo-run-2", "3", "0.0"),
        ("demo-run-5", "3", "0.25"),
    ]
    report = json.loads((folder / "demo.json").read_text())
    assert report["runs"] == rows
    assert report["config"]["hp_search_name"] == "demo"
    log = (project / "logs/sequifier-demo-rank0-3.txt").read_text()
    assert "[INFO] 1     demo-run-2  0.333333" in log
    assert "demo-run-1 failed: The loss is not finite." in log


@pytest.mark.parametrize(
    "error", [DataError("data/x.parquet: there is no such file."), ArtifactError("full")]
)
def test_what_is_no_runs_fault_ends_the_search_and_is_not_held_against_runs(project, trainer, error):
    trainer.failures["demo-run-1"] = [error]
    config = search(LAYERS, project_root=str(project))
    with pytest.raises(type(error), match=str(error)):
        hyperparameter_search(config)
    rows = hyperparameter_search(config)
    assert [row["status"] for row in rows] == ["complete"] * 3
    assert trainer.names == ["demo-run-0", "demo-run-1", "demo-run-1", "demo-run-2"]


def test_a_device_that_is_not_there_is_said_before_anything_is_trained(project, trainer, monkeypatch):
    def missing(spec):
        raise TrainingError("there is no cuda here")

    with monkeypatch.context() as patch:
        patch.setattr(search_command, "find_devices", missing)
        with pytest.raises(TrainingError, match="no cuda"):
            hyperparameter_search(search(LAYERS, project_root=str(project)))
    assert trainer.names == []
    assert len(hyperparameter_search(search(LAYERS, project_root=str(project)))) == 3


def test_a_search_of_which_nothing_came_may_be_changed(project, trainer):
    trainer.failures["demo-run-0"] = [DataError("no such file")]
    with pytest.raises(DataError):
        hyperparameter_search(search(LAYERS, training_data_path="x.parquet", project_root=str(project)))
    assert len(hyperparameter_search(search(LAYERS, project_root=str(project)))) == 3
    with pytest.raises(ConfigError, match="begun with another configuration"):
        hyperparameter_search(search({"num_layers": [4]}, project_root=str(project)))


def test_halving_is_not_gone_on_with_for_more_runs(project, trainer):
    def halving(count):
        return search(LAYERS, search_strategy="halving", n_samples=count, project_root=str(project))

    hyperparameter_search(halving(2))
    with pytest.raises(ConfigError, match=r"n_samples: was 2, is 3"):
        hyperparameter_search(halving(3))


def test_finished_runs_are_not_repeated_failed_ones_included(project, trainer):
    trainer.failures = {"demo-run-0": [TrainingError("no")], "demo-run-2": [KeyboardInterrupt()]}
    config = search(LAYERS, project_root=str(project))
    with pytest.raises(KeyboardInterrupt):
        hyperparameter_search(config)
    assert not (project / "outputs").exists()
    rows = hyperparameter_search(config)
    assert trainer.names == ["demo-run-0", "demo-run-1", "demo-run-2", "demo-run-2"]
    assert hyperparameter_search(config) == rows
    assert len(trainer.names) == 4


def test_a_sample_can_be_enlarged(project, trainer):
    def sample(count, **top):
        return search(LAYERS, search_strategy="sample", n_samples=count, project_root=str(project), **top)

    hyperparameter_search(sample(2))
    rows = hyperparameter_search(sample(3))
    assert trainer.names == ["demo-run-0", "demo-run-1", "demo-run-2"]
    assert sorted(row["num_layers"] for row in rows) == [1, 2, 3]


@pytest.mark.parametrize(
    ("training", "top", "said"),
    [
        ({}, {}, "3 runs (grid); 3 combinations."),
        (
            {"dropout": {"low": 0, "high": 0.5}},
            {"search_strategy": "sample", "n_samples": 4},
            "4 runs (sample); 3 listed combinations and 1 range to draw from.",
        ),
    ],
)
def test_the_log_begins_with_the_number_of_runs(project, trainer, training, top, said):
    hyperparameter_search(search(LAYERS, training, project_root=str(project), **top))
    assert f"[INFO] {said}" in (project / "logs/sequifier-demo-rank0-3.txt").read_text()


def test_a_changed_search_is_refused_with_what_differs(project, trainer):
    hyperparameter_search(search(LAYERS, project_root=str(project)))
    free = {"log_interval": 3, "save_interval_minutes": 5, "world_size": 1, "backend": "gloo"}
    changed = search({"num_layers": [1, 2]}, free, seed=4, project_root=str(project))
    with pytest.raises(ConfigError) as caught:
        hyperparameter_search(changed)
    assert [problem.key for problem in caught.value.problems] == [
        "seed",
        "model_hyperparameter_sampling.num_layers",
    ]
    assert "num_layers: was [1, 2, 3], is [1, 2]." in str(caught.value)
    other = METADATA.model_copy(update={"n_classes": {"item": 6}})
    (project / "m.json").write_text(other.model_dump_json())
    with pytest.raises(ConfigError, match="the metadata's digest: was"):
        hyperparameter_search(search(LAYERS, project_root=str(project)))


def test_damaged_state_is_explained(project, trainer):
    path = project / "configs/hp_search/demo-search.json"
    path.parent.mkdir(parents=True)
    for text in ("{", '{"config": 3}'):
        path.write_text(text)
        with pytest.raises(ArtifactError, match="does not hold the state of a search"):
            hyperparameter_search(search(project_root=str(project)))


def test_another_error_of_the_accelerator_is_a_fault(project, trainer):
    trainer.failures["demo-run-0"] = [jax.errors.JaxRuntimeError("INTERNAL: something broke")]
    with pytest.raises(jax.errors.JaxRuntimeError):
        hyperparameter_search(search(project_root=str(project)))


def test_a_search_in_which_all_fails_is_an_error_with_a_summary(project, trainer):
    trainer.failures["demo-run-0"] = [TrainingError("no device")]
    with pytest.raises(TrainingError, match=r"All 1 runs of 'demo' failed;.*no device"):
        hyperparameter_search(search(project_root=str(project)))
    assert (project / "outputs/hyperparameter_search/demo.csv").is_file()


def test_it_asks_before_a_grid_and_before_all_of_a_small_space(project, trainer):
    asked = []

    def no(question):
        asked.append(question)
        return False

    grid = search(LAYERS, override_input=False, project_root=str(project))
    assert hyperparameter_search(grid, no) == []
    assert asked == ["The grid has 3 combinations; 3 models are to be trained. Start?"]
    assert trainer.trained == []
    assert load_state(project / "configs/hp_search/demo-search.json") is None
    large = grid.model_copy(update={"search_strategy": "sample", "n_samples": 4})
    assert hyperparameter_search(large, no) == []
    assert asked[1:] == ["n_samples is 4, but there are 3 combinations. Train all of them?"]
    hyperparameter_search(grid.model_copy(update={"override_input": True}), no)
    hyperparameter_search(grid.model_copy(update={"hp_search_name": "other"}), lambda _: True)
    assert len(asked) == 2
    assert len(trainer.trained) == 6
    few = grid.model_copy(update={"search_strategy": "sample", "n_samples": 2, "hp_search_name": "few"})
    hyperparameter_search(few, no)
    assert len(asked) == 2


def quick(monkeypatch):
    """Leaves out what costs most."""
    monkeypatch.setattr("seqjax.commands.train.export", lambda *_, **__: ((), ()))


RATES = {"learning_rate": [0.01, 0.03, 1e30, 1e-12], "epochs": [2, 3, 2, 4], "early_stopping_epochs": 1}


def test_together_is_as_one_after_the_other(project, monkeypatch):
    """Each ends by itself: after its epochs, because it diverges, or since it does not get any better."""
    quick(monkeypatch)
    found = {}
    for engine in ("sequential", "vmap"):
        config = search({}, RATES, engine=engine, hp_search_name=engine, project_root=str(project))
        rows = hyperparameter_search(config)
        found[engine] = [(row["combination"], row["status"], row["last_epoch"]) for row in rows]
        losses = [row["best_validation_loss"] for row in rows if row["best_validation_loss"] is not None]
        found[f"{engine} losses"] = losses
        logs = [
            [json.loads(line) for line in path.read_text().splitlines()]
            for path in sorted((project / "logs").glob(f"sequifier-{engine}-run-*.jsonl"))
        ]
        found[f"{engine} logs"] = [[(event["event"], event.get("epoch")) for event in log] for log in logs]
    assert found["vmap"] == found["sequential"]
    assert found["vmap losses"] == pytest.approx(found["sequential losses"], rel=1e-4)
    assert found["vmap logs"] == found["sequential logs"]
    assert sorted(found["vmap"]) == [
        (0, "complete", 2),
        (1, "complete", 3),
        (2, "failed", None),
        (3, "complete", 2),
    ]
    log = (project / "logs/sequifier-vmap-rank0-3.txt").read_text()
    assert "each compiled once for all of its runs: 1." in log
    assert "Epoch   1 | Batch" not in log


def test_halving_trains_the_better_ones_for_longer(project, monkeypatch):
    quick(monkeypatch)
    rates = [0.03, 1e-6, 1e-5, 0.01, 2e-6, 1e30]
    config = search(
        {},
        {"learning_rate": rates, "epochs": [4] * 6},
        search_strategy="halving",
        halving_factor=2,
        engine="vmap",
        population_size=4,
        project_root=str(project),
    )
    rows = hyperparameter_search(config)
    found = Counter((row["status"], row["last_epoch"]) for row in rows)
    assert found == {("complete", 4): 2, ("stopped", 2): 1, ("stopped", 1): 2, ("failed", None): 1}
    assert rows[0]["status"] == "complete"
    assert hyperparameter_search(config) == rows


def test_optuna_learns_from_batches_and_goes_on(project, trainer):
    """Twelve trials, of which the later ones are better; a search that is interrupted asks for the same."""

    def tpe(name, **top):
        return search(
            {"num_layers": [1, 2, 3, 4]},
            {"dropout": {"low": 0, "high": 0.5}},
            search_strategy="tpe",
            n_samples=12,
            population_size=3,
            hp_search_name=name,
            project_root=str(project),
            **top,
        )

    rows = hyperparameter_search(tpe("whole"))
    assert len(rows) == len(trainer.names) == 12
    trainer.failures["part-run-7"] = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        hyperparameter_search(tpe("part"))
    again = hyperparameter_search(tpe("part"))
    keys = ("rank", "combination", "num_layers", "dropout", LOSS)
    assert [[row[key] for key in keys] for row in again] == [[row[key] for key in keys] for row in rows]
    assert Counter(trainer.names)["part-run-7"] == 2
    # As optuna-dashboard opens it.
    storage = f"sqlite:///{project / 'configs/hp_search/part-study.db'}"
    study = optuna.load_study(study_name="part", storage=storage)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 12
    assert study.best_value == rows[0][LOSS]
    assert study.best_params == {
        "model_spec.num_layers": rows[0]["num_layers"],
        "training_spec.dropout": rows[0]["dropout"],
    }


def test_a_study_that_lacks_finished_trials_is_refused(project, trainer):
    """Its trials would be taken for others."""
    config = search(
        {},
        {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}},
        search_strategy="tpe",
        n_samples=2,
        project_root=str(project),
    )
    hyperparameter_search(config)
    (project / "configs/hp_search/demo-study.db").unlink()
    with pytest.raises(ArtifactError, match=r"demo-study.db lacks trials whose runs are finished"):
        hyperparameter_search(config)


@pytest.mark.parametrize("at_once", [1, 2])
def test_optuna_is_not_left_to_ask_for_the_same_for_ever(project, trainer, at_once):
    config = search(
        LAYERS,
        {"dropout": [0.0, 0.25]},
        search_strategy="tpe",
        n_samples=4,
        population_size=at_once,
        project_root=str(project),
    )
    assert len(hyperparameter_search(config)) == 4


def test_a_study_is_not_gone_on_with_when_the_state_of_its_search_is_gone(project, trainer):
    config = search({"num_layers": [1, 2]}, search_strategy="tpe", n_samples=2, project_root=str(project))
    hyperparameter_search(config)
    folder = project / "configs/hp_search"
    (folder / "demo-search.json").unlink()
    with pytest.raises(ArtifactError, match=r"demo-study.db holds .* Remove the study too"):
        hyperparameter_search(config)
    (folder / "demo-study.db").unlink()
    assert len(hyperparameter_search(config)) == 2


def test_trials_that_cannot_be_trained_are_passed_over(project, trainer):
    config = search(
        {
            "dim_model": [4, 6],
            "n_head": [4, 4],
            "initial_embedding_dim": [4, 6],
            "joint_embedding_dim": [None] * 2,
        },
        {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}},
        search_strategy="tpe",
        n_samples=3,
        project_root=str(project),
    )
    rows = hyperparameter_search(config)
    assert [row["dim_model"] for row in rows] == [4, 4, 4]
    report = json.loads((project / "outputs/hyperparameter_search/demo.json").read_text())
    assert all("n_head" in skipped["reason"] for skipped in report["skipped"])


def test_the_page_shows_settings_and_importance(project, trainer):
    config = search(LAYERS, {"dropout": [0.0, 0.25]}, project_root=str(project))
    hyperparameter_search(config)
    text = (project / "outputs/hyperparameter_search/demo.html").read_text()
    assert '"parcoords"' in text
    assert "Importance" in text
    assert "demo-run-2" in text
    assert "http-equiv" in text
