from pathlib import Path

from seqjax.artifacts.layout import Layout


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
    assert layout.predictions("m", "csv") == Path("root/outputs/predictions/m-predictions.csv")
    assert layout.probabilities("m", "item", "csv") == Path(
        "root/outputs/probabilities/m-item-probabilities.csv"
    )
    assert layout.embeddings("m", "csv") == Path("root/outputs/embeddings/m-embeddings.csv")


def test_only_files_of_this_very_run_are_found(tmp_path):
    layout = Layout(tmp_path, "demo")
    assert list(layout.models("best")) == []
    assert layout.saved_epochs() == []
    layout.checkpoint(2).parent.mkdir(parents=True)
    for epoch in (10, 2):
        layout.checkpoint(epoch).mkdir()
        (tmp_path / "models").mkdir(exist_ok=True)
        layout.model("best", epoch).touch()
        layout.model("best", epoch, kind="embedding").touch()
        Layout(tmp_path, "demo-best").model("best", epoch + 1).touch()
    Layout(tmp_path, "demo2").checkpoint(99).mkdir(parents=True)
    (layout.checkpoints / "epoch-5.orbax-checkpoint-tmp").mkdir()
    assert layout.saved_epochs() == [2, 10]
    assert [epoch for epoch, _ in layout.models("best")] == [2, 10]
    assert [path.name for _, path in layout.models("best", kind="embedding")] == [
        "sequifier-demo-best-embedding-2.onnx",
        "sequifier-demo-best-embedding-10.onnx",
    ]
