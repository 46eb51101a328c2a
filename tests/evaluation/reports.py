"""A report with every part, of two made-up models, for tests of what shows it."""

from seqjax.evaluation.pieces import Estimate
from seqjax.evaluation.result import (
    FORMAT,
    Baselines,
    Bin,
    Calibration,
    ConfusionTable,
    Example,
    Guess,
    ModelResult,
    Points,
    Position,
    Rank,
    Report,
    Settings,
    TargetResult,
    Verdict,
)

CLASS_METRICS = (
    "top_1_accuracy",
    "top_3_accuracy",
    "top_5_accuracy",
    "nll",
    "perplexity",
    "confidence",
    "entropy",
)
REAL_METRICS = ("mae", "rmse", "r2", "bias")


def figures(names: tuple[str, ...], value: float) -> dict[str, Estimate]:
    """The same figure for every metric."""
    return {name: Estimate(value, value - 0.1, value + 0.1) for name in names}


def item() -> TargetResult:
    """A categorical target with two positions."""
    metrics = {"model": figures(CLASS_METRICS, 0.5), "last value": figures(CLASS_METRICS, 0.75)}
    plain = {name: {key: estimate.value for key, estimate in row.items()} for name, row in metrics.items()}
    text = "Better than the best baseline (last value): NLL lower by 0.25 nats [0.2, 0.3], 33%."
    return TargetResult(
        kind="categorical",
        head="categorical",
        items=20,
        not_scored={"padding": 2, "unknown": 1, "other": 0},
        pieces=12,
        verdict=Verdict("better", text, "nll", "last value", Estimate(0.25, 0.2, 0.3), 1 / 3),
        metrics=metrics,
        positions=[Position(1, 2, 9, plain), Position(2, 3, 11, plain)],
        classes={"known": 4, "occurred": 2, "predicted": 2},
        calibration=Calibration(
            {"model": 0.04, "last value": None}, [Bin(0.0, 0.5, 0, None, None), Bin(0.5, 1.0, 20, 0.7, 0.66)]
        ),
        confusion=ConfusionTable(["<apple>", "fig"], [[9, 1, 0], [2, 8, 0], [0, 0, 0]]),
        points=None,
    )


def price() -> TargetResult:
    """A real target with one hopeless baseline."""
    metrics = {
        "model": figures(REAL_METRICS, 0.5),
        "last value": figures(REAL_METRICS, 0.55),
        "marginal": figures(REAL_METRICS, 90.0),
    }
    text = (
        "No better than the best baseline (last value): RMSE lower by 0.05 [-0.1, 0.2], which may be chance."
    )
    return TargetResult(
        kind="real",
        head="point",
        items=22,
        not_scored={"padding": 2},
        pieces=12,
        verdict=Verdict("no better", text, "rmse", "last value", Estimate(0.05, -0.1, 0.2), 0.05 / 0.55),
        metrics=metrics,
        positions=[],
        classes=None,
        calibration=None,
        confusion=None,
        points=Points([1.0, 2.0, 4.0], {name: [1.5, 2.0, 3.0] for name in metrics}),
    )


def model(name: str) -> ModelResult:
    """A model of both targets."""
    likely = {"fig": 0.8, "<apple>": 0.15, "other": 0.05}
    return ModelResult(
        name=name,
        path=f"models/{name}.onnx",
        seq_length=3,
        prediction_length=2,
        best_epoch=4,
        windows=11,
        sequences=12,
        resampled="sequences",
        baselines=Baselines("data/training", 40),
        verdict="Better than the best baseline on 1 of 2 targets: item. No better than it on price.",
        targets={"item": item(), "price": price()},
        examples=[
            Example(
                7,
                13,
                {"item": ["fig", "<apple>"], "price": [1.0, 2.5], "shop": ["a", "b"]},
                {"item": Guess("fig", "fig", likely), "price": Guess(3.0, 2.75, None)},
            )
        ],
        notes=["item: 1 items without a value."],
    )


def report(*names: str) -> Report:
    """The report of some models; two are compared."""
    ranks = [Rank(name, Estimate(0.5 + at, 0.4, 2.0), None) for at, name in enumerate(names)]
    if len(names) > 1:
        ranks[1] = Rank(names[1], Estimate(1.5, 1.4, 1.6), Estimate(1.0, 0.9, 1.1))
    return Report(
        format=FORMAT,
        seqjax_version="0.1.0",
        created="2026-01-02T03:04:05+00:00",
        files=["outputs/evaluations/a-evaluation.json"],
        data="data/held-out.csv",
        settings=Settings(0.95, 1000, 1010, 15, score_reserved=False),
        models=[model(name) for name in names],
        comparison={"item": ranks} if len(names) > 1 else {},
    )
