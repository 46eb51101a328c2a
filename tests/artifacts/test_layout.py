from pathlib import Path

from seqjax.artifacts.layout import (
    Layout,
    Place,
    logged_models,
    results_path,
    target_names,
    visualization_path,
)


def test_files_have_their_documented_names():
    layout = Layout(Path("root"), "demo")
    assert layout.debug_log() == Path("root/logs/sequifier-demo-rank0-2.txt")
    assert layout.info_log() == Path("root/logs/sequifier-demo-rank0-3.txt")
    assert layout.json_log() == Path("root/logs/sequifier-demo-rank0.jsonl")
    assert layout.model("best", 7) == Path("root/models/sequifier-demo-best-7.onnx")
    assert layout.model("last", 7, kind="embedding") == Path(
        "root/models/sequifier-demo-last-embedding-7.onnx"
    )
    assert layout.checkpoint(3) == Path("root/checkpoints/demo/epoch-3")
    root = Path("root")
    assert results_path(root, "predictions", "m", "csv") == Path("root/outputs/predictions/m-predictions.csv")
    assert results_path(root, "probabilities", "m", "csv", "item") == Path(
        "root/outputs/probabilities/m-item-probabilities.csv"
    )
    assert results_path(root, "embeddings", "m", "csv") == Path("root/outputs/embeddings/m-embeddings.csv")


def test_a_target_s_name_cannot_leave_its_folder():
    (name,) = target_names("m", ["../price/unit"]).values()
    path = results_path(Path("root"), "probabilities", "m", "csv", name)
    assert path == Path("root/outputs/probabilities/m-.._price_unit-probabilities.csv")


def test_long_names_fit_into_file_names(tmp_path):
    targets = ["x" * 250, "x" * 251, "é" * 200]
    names = target_names("m" * 100, targets).values()
    paths = [results_path(tmp_path, "probabilities", "m" * 100, "parquet", name) for name in names]
    paths[0].parent.mkdir(parents=True)
    for path in paths:
        path.touch()
    assert len(list(paths[0].parent.iterdir())) == 3


def test_only_checkpoints_of_this_very_run_are_found(tmp_path):
    layout = Layout(tmp_path, "demo")
    assert layout.saved() == []
    for epoch in (10, 2):
        layout.checkpoint(epoch).mkdir(parents=True)
    Layout(tmp_path, "demo2").checkpoint(99).mkdir(parents=True)
    (layout.checkpoints / "epoch-5.orbax-checkpoint-tmp").mkdir()
    assert layout.saved() == [Place(2), Place(10)]


def test_places_in_the_middle_of_an_epoch_come_after_the_epoch_before(tmp_path):
    layout = Layout(tmp_path, "demo")
    places = [Place(0, 7), Place(1), Place(1, 2), Place(1, 10), Place(2)]
    for place in reversed(places):
        layout.checkpoint(*place).mkdir(parents=True)
    assert layout.checkpoint(1, 10).name == "epoch-2-batch-10"
    assert layout.saved() == places


def test_names_of_logged_runs(tmp_path):
    assert logged_models(tmp_path) == []
    (tmp_path / "logs").mkdir()
    for layout in (Layout(tmp_path, "b"), Layout(tmp_path, "a-rank0"), Layout(tmp_path, "a")):
        for path in (layout.debug_log(), layout.info_log(), layout.json_log()):
            path.touch()
    Layout(tmp_path, "other").info_log(1).touch()
    (tmp_path / "logs" / "notes.txt").touch()
    assert logged_models(tmp_path) == ["a", "a-rank0", "b"]


def test_where_training_is_shown(tmp_path):
    pages = tmp_path / "outputs" / "visualization"
    assert visualization_path(tmp_path, "a") == pages / "a-training-visualization.html"
    assert visualization_path(tmp_path, "multi-model") == pages / "multi-model-training-visualization.html"
    assert Layout(tmp_path, "a").tensorboard == tmp_path / "logs" / "tensorboard" / "a"
