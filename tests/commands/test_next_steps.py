"""What is said at the end of a training."""

from pathlib import Path

from seqjax.commands.train_run import TrainResult


def said(*names: str, baselines: dict[str, float] | None = None) -> str:
    best = tuple(Path("models") / name for name in names)
    last = tuple(Path(str(path).replace("best", "last")) for path in best)
    return "\n".join(TrainResult(best, last, 3, 0.51234, 5, baselines or {}).next_steps())


def test_the_files_and_what_to_do_with_them() -> None:
    found = said(
        "sequifier-a-best-5.onnx",
        "sequifier-a-best-embedding-5.onnx",
        baselines={"last value": 0.7, "marginal": 1.25},
    )
    assert found.splitlines() == [
        "The best epoch was 3 of 5, with a validation loss of 0.5123.",
        "The best of the simple baselines, last value, has 0.7.",
        "Model files:",
        "  models/sequifier-a-best-5.onnx",
        "  models/sequifier-a-best-embedding-5.onnx",
        "  models/sequifier-a-last-5.onnx",
        "  models/sequifier-a-last-embedding-5.onnx",
        "Next, how good it is on held-out data, and what it predicts:",
        "  seqjax evaluate --model-path models/sequifier-a-best-5.onnx",
        "  seqjax infer --model-path models/sequifier-a-best-5.onnx",
    ]


def test_an_embedding_model_alone() -> None:
    last_line = said("sequifier-a-best-embedding-5.pt").splitlines()[-1]
    assert last_line == (
        "  seqjax infer --model-type embedding --model-path models/sequifier-a-best-embedding-5.pt"
    )


def test_no_files() -> None:
    assert said() == (
        "No model file was written: export_generative_model and export_embedding_model are false."
    )


def test_a_project_elsewhere_and_names_with_spaces() -> None:
    model = Path("my project/models/sequifier-a b-best-5.onnx")
    lines = list(TrainResult((model,), (), 3, 0.5, 5, {}).next_steps())
    words = "--project-root 'my project' --model-path 'my project/models/sequifier-a b-best-5.onnx'"
    assert lines[-2:] == [f"  seqjax evaluate {words}", f"  seqjax infer {words}"]
