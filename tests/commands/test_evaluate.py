"""`evaluate` on a small trained model: figures against those of `infer`, where data is, what is refused."""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import seqjax
from seqjax import cli
from seqjax.commands import evaluate as command
from seqjax.errors import ConfigError, DataError, MissingPackageError
from seqjax.evaluation.result import Report
from tests.engines import FakeEngine, fake_card

ITEMS = ["a", "b", "c", "d"]
LENGTH = 4


def table(seed: int, sequences: int, *, unseen: bool = False) -> pl.DataFrame:
    """Items go round with probability 0.9; a price follows the item and its own last value."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list] = {"sequenceId": [], "itemPosition": [], "item": [], "price": []}
    for sequence in range(sequences):
        at, price = int(rng.integers(4)), 10.0
        for position in range(int(rng.integers(2, 20))):
            at = (at + 1) % 4 if rng.random() < 0.9 else int(rng.integers(4))
            price = 5 + 0.5 * price + at + rng.normal(0, 0.2)
            label = "e" if unseen and rng.random() < 0.1 else ITEMS[at]
            values = (sequence, position, label, price)
            for column, value in zip(rows.values(), values, strict=True):
                column.append(value)
    return pl.DataFrame(rows)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Preprocessed data, and a model of four epochs as ONNX and as a torch file."""
    root = tmp_path_factory.mktemp("project")
    (root / "data").mkdir()
    table(0, 200).write_csv(root / "data" / "t.csv")
    table(1, 60).write_csv(root / "data" / "new.csv")
    table(2, 60, unseen=True).write_csv(root / "data" / "unseen.csv")
    common = {"project_root": str(root), "seq_length": LENGTH, "write_format": "arrow"}
    seqjax.preprocess(
        {
            **common,
            "data_path": "data/t.csv",
            "split_method": "between_sequences",
            "split_ratios": [0.8, 0.2],
            "stride_by_split": [1, 1],
        }
    )
    seqjax.preprocess(
        {
            **common,
            "data_path": "data/new.csv",
            "metadata_config_path": "configs/metadata_configs/t.json",
            "split_ratios": [1.0],
            "stride_by_split": [1],
        }
    )
    seqjax.train(
        {
            "project_root": str(root),
            "metadata_config_path": "configs/metadata_configs/t.json",
            "model_name": "demo",
            "target_columns": ["item", "price"],
            "target_column_types": {"item": "categorical", "price": "real"},
            "seq_length": LENGTH,
            "inference_batch_size": 32,
            "export_generative_model": True,
            "export_embedding_model": False,
            "export_pt": True,
            "model_spec": {
                "initial_embedding_dim": 12,
                "feature_embedding_dims": {"item": 8, "price": 4},
                "dim_model": 12,
                "n_head": 2,
                "dim_feedforward": 24,
                "num_layers": 1,
                "prediction_length": 2,
            },
            "training_spec": {
                "device": "cpu",
                "epochs": 4,
                "save_interval_epochs": 4,
                "batch_size": 32,
                "learning_rate": 0.02,
                "criterion": {"item": "CrossEntropyLoss", "price": "MSELoss"},
            },
        }
    )
    return root


MODEL = "models/sequifier-demo-last-4.onnx"


def run(root: Path, **changes: Any) -> Report:
    values = {
        "project_root": str(root),
        "model_path": MODEL,
        "data_path": "data/new.csv",
        "html": False,
        "bootstrap_samples": 200,
    }
    return seqjax.evaluate({**values, **changes})


def figures(report: Report, *, model: int = 0) -> dict[str, dict[str, float | None]]:
    targets = report.models[model].targets
    return {
        name: {key: estimate.value for key, estimate in target.metrics["model"].items()}
        for name, target in targets.items()
    }


def doubts(model) -> list[str]:
    """Notes of a model, but for what is not scored."""
    return [note for note in model.notes if "not scored" not in note]


def test_figures_are_those_of_what_infer_writes(project: Path) -> None:
    report = run(project)
    prediction, *probabilities = seqjax.infer(
        {
            "project_root": str(project),
            "model_path": MODEL,
            "model_type": "generative",
            "data_path": "data/new.csv",
            "stride": 2,
            "output_probabilities": True,
            "write_format": "parquet",
        }
    )
    found = pl.read_parquet(prediction).hstack(pl.read_parquet(probabilities[0]))
    truth = pl.read_csv(project / "data" / "new.csv")
    first = pl.col("itemPosition") == pl.col("itemPosition").min().over("sequenceId")
    both = found.join(truth.filter(~first), on=["sequenceId", "itemPosition"], suffix="_truth")
    probs = both.select(ITEMS).to_numpy()
    came = np.array([ITEMS.index(label) for label in both["item_truth"]])
    nll = -np.log(probs[np.arange(len(both)), came].astype(np.float64))
    error = (both["price"] - both["price_truth"]).to_numpy()
    shown = figures(report)
    assert report.models[0].targets["item"].items == len(both)
    assert shown["item"]["nll"] == pytest.approx(nll.mean(), rel=1e-5)
    assert shown["item"]["top_1_accuracy"] == pytest.approx((both["item"] == both["item_truth"]).mean())
    assert shown["price"]["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
    assert shown["price"]["rmse"] == pytest.approx(np.sqrt(np.square(error).mean()), rel=1e-5)


def test_a_model_that_learnt_something_is_better(project: Path) -> None:
    model = run(project).models[0]
    assert model.targets["price"].verdict.outcome == "better"
    assert model.targets["item"].verdict.baseline == "first-order Markov"
    assert model.targets["item"].metrics["model"]["top_1_accuracy"].value == pytest.approx(0.925, abs=0.05)
    assert len(model.targets["item"].positions) == 2
    assert (model.windows, model.sequences, model.resampled) == (model.windows, 60, "sequences")
    assert model.baselines.fitted_on is not None
    assert model.baselines.fitted_on.endswith("data/t-split0")


def test_a_table_and_its_windows_are_the_same_data(project: Path) -> None:
    raw, windows = run(project), run(project, data_path="data/new-split0", model_path="last")
    assert (raw.models[0].name, windows.models[0].name) == ("sequifier-demo-last-4", "sequifier-demo-last-4")
    for name, row in figures(raw).items():
        assert figures(windows)[name] == pytest.approx(row, rel=1e-6)
    assert raw.models[0].windows == windows.models[0].windows
    assert [example.window for example in raw.models[0].examples] == [
        example.window for example in windows.models[0].examples
    ]


def test_several_models_are_compared(project: Path) -> None:
    report = run(project, model_path=[MODEL, "models/sequifier-demo-last-4.pt"])
    assert [model.name for model in report.models] == [Path(MODEL).name, "sequifier-demo-last-4.pt"]
    assert [Path(file).name for file in report.files] == ["comparison-evaluation.json"]
    for name, row in figures(report).items():
        assert figures(report, model=1)[name] == pytest.approx(row, rel=1e-4)
        behind = report.comparison[name][1].behind
        assert behind is not None
        assert behind.value == pytest.approx(0, abs=1e-4)


def test_the_command_prints_tables_and_writes_a_report_and_a_page(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    config = project / "configs" / "evaluate.yaml"
    config.write_text(f"project_root: .\nmodel_path: {MODEL}\nbootstrap_samples: 100\n")
    try:
        code = cli.main(["evaluate", "--data-path", "data/new.csv", "--report-name", "mine", "--seed", "3"])
    finally:
        logging.getLogger("seqjax").handlers.clear()
        logging.getLogger("seqjax").setLevel(logging.NOTSET)
    printed = capsys.readouterr().out
    assert code == 0
    for words in (
        "sequifier-demo-last-4: ",
        "Best baseline",
        "first-order Markov",
        "Perplexity",
        "RMSE",
        "ECE",
    ):
        assert words in printed
    written = json.loads((project / "outputs/evaluations/mine-evaluation.json").read_text())
    assert written["settings"]["seed"] == 3
    assert written["models"][0]["verdict"] in printed
    assert "<h1>sequifier-demo-last-4 on new.csv</h1>" in (
        project / "outputs/evaluations/mine-evaluation.html"
    ).read_text(encoding="utf-8")


def test_a_seed_repeats_everything_but_the_time(project: Path) -> None:
    one, other, another = (run(project, seed=seed).models for seed in (5, 5, 6))
    assert one == other
    assert one != another


def test_unseen_categories_are_left_out_and_said(project: Path) -> None:
    model = run(project, data_path="data/unseen.csv").models[0]
    item = model.targets["item"]
    assert item.not_scored["other"] > 50
    assert item.not_scored["missing"] == 0
    assert any(
        f"{item.not_scored['other']} whose value the training data lacks" in note for note in model.notes
    )
    scored = run(project, data_path="data/unseen.csv", score_reserved=True).models[0]
    assert scored.targets["item"].items == item.items + item.not_scored["other"]
    assert doubts(scored) == []


@pytest.mark.parametrize(
    "source",
    [{"training_data_path": "data/t.csv"}, {"metadata_config_path": "configs/metadata_configs/t.json"}],
    ids=["a table", "metadata"],
)
def test_baselines_are_fitted_on_what_is_named(project: Path, source: dict[str, str]) -> None:
    named = run(project, **source).models[0]
    assert named.baselines.fitted_on is not None
    assert Path(named.baselines.fitted_on).name == Path(source.get("training_data_path", "t-split0")).name
    known = run(project).models[0].targets["item"].metrics["marginal"]["nll"].value
    assert named.targets["item"].metrics["marginal"]["nll"].value == pytest.approx(known, rel=0.02)


def test_without_training_data_there_are_figures_but_no_verdict(project: Path) -> None:
    copied = project / "models" / "moved.onnx"
    copied.write_bytes((project / MODEL).read_bytes())
    elsewhere = project / "elsewhere"
    elsewhere.mkdir()
    data = str(project / "data" / "new.csv")
    model = run(elsewhere, model_path=str(copied), data_path=data, report_name="x").models[0]
    assert list(model.targets["item"].metrics) == ["model"]
    assert model.baselines.fitted_on is None
    assert model.verdict == "Not judged: item and price."
    assert "name it by training_data_path" in model.notes[0]


def test_evaluating_the_training_data_is_said(project: Path) -> None:
    model = run(project, data_path="data/t-split0").models[0]
    assert doubts(model) == [
        "This is the training data, not held-out data: the figures are too optimistic.",
        "The baselines are fitted on this very data: their figures are too optimistic.",
    ]
    fair = run(project, data_path="data/t-split0", training_data_path="data/new.csv").models[0]
    assert doubts(fair) == doubts(model)[:1]


def test_fitting_baselines_on_the_held_out_data_is_said(project: Path) -> None:
    model = run(project, data_path="data/new.csv", training_data_path="data/new.csv").models[0]
    assert doubts(model) == ["The baselines are fitted on this very data: their figures are too optimistic."]


def test_evaluating_what_chose_the_best_epoch_is_said(project: Path) -> None:
    assert doubts(run(project, data_path="data/t-split1").models[0]) == []
    model = run(project, data_path="data/t-split1", model_path="best").models[0]
    (note,) = doubts(model)
    assert note.startswith("The best epoch was chosen by the loss on this very data")


def test_baselines_are_not_fitted_on_held_out_data_unawares(project: Path) -> None:
    """The metadata of the held-out data has a first split too: that data."""
    report = run(project, metadata_config_path="configs/metadata_configs/new.json", data_path=None)
    assert Path(report.data).name == "new-split0"
    fitted_on = report.models[0].baselines.fitted_on
    assert fitted_on is not None
    assert Path(fitted_on).name == "t-split0"
    assert doubts(report.models[0]) == []


def test_onnx_models_need_no_jax(project: Path) -> None:
    program = (
        "import sys\n"
        "import seqjax\n"
        f"seqjax.evaluate({{'project_root': '.', 'model_path': '{MODEL}', 'data_path': 'data/new.csv',\n"
        "    'bootstrap_samples': 100})\n"
        "print(sorted({'jax', 'flax', 'torch', 'onnx'} & set(sys.modules)))\n"
    )
    root = str(Path(seqjax.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=project,
        env={"PYTHONPATH": root, "PATH": ""},
    )
    assert done.stdout == "[]\n"


def test_mistakes_are_explained(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"predicts no 'itm'\. Did you mean 'item'"):
        run(project, target_columns=["itm"])
    with pytest.raises(ConfigError, match="stride: is of raw tables"):
        run(project, data_path="data/new-split0", stride=2)
    with pytest.raises(ConfigError, match=r"report_name: must not contain a slash.*'\.\./x'"):
        run(project, report_name="../x")
    with pytest.raises(DataError, match="nowhere"):
        run(project, training_data_path="data/nowhere.csv")


def test_models_that_sequifier_trained(shared: Path, tmp_path: Path) -> None:
    golden = tmp_path / "project"
    shutil.copytree(shared / "golden" / "project", golden, ignore=shutil.ignore_patterns("*.npz", "*_pt*"))
    report = run(
        golden,
        model_path=["models/sequifier-K-best-1.onnx", "models/sequifier-K-best-1.pt"],
        data_path="data/shop-split2.parquet",
        metadata_config_path="configs/metadata_configs/shop.json",
        training_config_path="configs/train_K.yaml",
    )
    for name, row in figures(report).items():
        assert figures(report, model=1)[name] == pytest.approx(row, rel=1e-4)
    model = report.models[0]
    assert model.baselines.fitted_on is not None
    assert Path(model.baselines.fitted_on).name == "shop-split0.parquet"
    assert model.verdict == "Worse than the best baseline on item and price."  # It was trained one epoch.


def test_an_embedding_model_predicts_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = fake_card({"item": {"a": 2}}, {}, {"item": "categorical"}).of_kind("embedding")
    engine = FakeEngine(card, lambda inputs, valid: {})
    monkeypatch.setattr(command, "open_engine", lambda path, describe, device: engine)
    with pytest.raises(ConfigError, match=r"demo-last-4\.onnx is an embedding model, which predicts nothing"):
        run(project)


def test_a_page_needs_plotly_and_says_so_before_anything_is_computed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(
        MissingPackageError, match=r"html: false leaves it out.*pip install \"seqjax\[plots\]\""
    ):
        run(project, html=True)
