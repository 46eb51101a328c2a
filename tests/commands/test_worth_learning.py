"""What can be learnt is learnt with the settings of the templates, and judged to be."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import seqjax
from seqjax.config.yaml_text import parse_yaml
from seqjax.evaluation.result import Report

SCHEDULER = {"name": "CosineAnnealingLR", "T_max": 20}
TEMPLATES = Path(seqjax.__file__).parent / "templates"


def by_template(name: str, **changes: Any) -> dict[str, Any]:
    """The keys of a template, with some changed, in its sections too."""
    values = parse_yaml((TEMPLATES / f"{name}.yaml").read_text(), name)
    assert isinstance(values, dict)
    for key, value in changes.items():
        is_section = key in ("model_spec", "training_spec")
        values[key] = values[key] | value if is_section else value
    return values


def learnt(root: Path, items: pl.DataFrame, **training: Any) -> Report:
    """The held-out third split, as the best and the last parameters predict it."""
    (root / "data").mkdir()
    items.write_csv(root / "data" / "t.csv")
    common = {"project_root": str(root)}
    seqjax.preprocess(by_template("preprocess", **common, data_path="data/t.csv"))
    metadata = "configs/metadata_configs/t.json"
    kinds = {"item": "categorical"}
    training |= {"criterion": {"item": "CrossEntropyLoss"}}
    seqjax.train(
        by_template(
            "train",
            **common,
            metadata_config_path=metadata,
            model_name="t",
            target_columns=list(kinds),
            target_column_types=kinds,
            model_spec={"feature_embedding_dims": None},
            training_spec=training,
        )
    )
    return seqjax.evaluate(
        by_template(
            "evaluate",
            **common,
            model_path=["best", "last"],
            metadata_config_path=metadata,
            data_path=None,
            html=False,
        )
    )


def figures(report: Report, metric: str) -> list[float | None]:
    return [model.targets["item"].metrics["model"][metric].value for model in report.models]


def table(sequences: list[list[str]]) -> pl.DataFrame:
    rows = [
        (number, position, item)
        for number, sequence in enumerate(sequences)
        for position, item in enumerate(sequence)
    ]
    return pl.DataFrame(rows, schema=["sequenceId", "itemPosition", "item"], orient="row")


def test_sequences_that_go_round_are_predicted(tmp_path: Path) -> None:
    """A held-out item has nine items before it in another split, which it is predicted from."""
    report = learnt(
        tmp_path, table([list("abcabcabca")] * 400), epochs=20, learning_rate=0.01, scheduler=SCHEDULER
    )
    for model in report.models:
        target = model.targets["item"]
        assert (target.items, target.verdict.outcome) == (400, "better")
        assert target.verdict.relative is None
        assert target.verdict.text.endswith("].")
    assert figures(report, "top_1_accuracy") == [1.0] * len(report.models)


@pytest.mark.slow
def test_what_a_context_tells_is_learnt_and_the_best_epoch_is_found(tmp_path: Path) -> None:
    """Each sequence repeats its own pattern, which its held-out items are predicted from."""
    rng = np.random.default_rng(0)
    patterns = [rng.integers(0, 16, rng.integers(4, 21)) for _ in range(1000)]
    sequences = [[f"t{token}" for token in np.resize(pattern, 200)] for pattern in patterns]
    report = learnt(tmp_path, table(sequences), epochs=4)
    nll = figures(report, "nll")
    assert nll[0] is not None
    assert nll[-1] is not None
    assert nll[0] <= 1.02 * nll[-1]
