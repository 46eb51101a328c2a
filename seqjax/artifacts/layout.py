"""Paths of the files of a project: the only code that knows the names of logs, checkpoints, models, outputs.

logs/sequifier-<model>-rank<r>-2.txt, -3.txt, .jsonl       checkpoints/<model>/epoch-<n>[-batch-<k>]/
models/sequifier-<model>-best|last[-embedding]-<epoch>.<ext>
outputs/predictions/<id>-predictions.<ext>                 outputs/embeddings/<id>-embeddings.<ext>
outputs/probabilities/<id>-<target>-probabilities.<ext>    outputs/evaluations/<id>-evaluation.json|html
outputs/quantiles/<id>-quantiles.<ext>                     outputs/frequencies/<id>-<target>-frequencies.<ext>
                                                           (<id> is a model file's name without its ending)

Results of data that is read file by file (pt) have a folder in place of each file under outputs/, with
<id>-<k>-predictions.<ext>, <id>-<k>-probabilities.<ext> or <id>-<k>-embeddings.<ext> for input file k.

Preprocessed data: data/<name>-split<k>[.<ext>]            configs/metadata_configs/<name>.json
Its own ids and times: data/<name>-keys/
"""

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from seqjax.config.names import file_names

Which = Literal["best", "last"]
ModelKind = Literal["generative", "embedding"]
Results = Literal["predictions", "probabilities", "embeddings", "quantiles", "frequencies"]

_OWN_FILES = re.compile(
    r"manifest\.json|metadata\.json|(rows|runs|positions|windows)-\d+\.arrow|.*-\d+\.(pt|parquet)"
    r"|keys\.json|(sequences|times)\.arrow"
)


class Place(NamedTuple):
    """Whole epochs, and batches of the next one, that a run has done; a later place is greater."""

    epoch: int
    batch: int = 0


@dataclass(frozen=True)
class Layout:
    """The files of the run `model_name` in the project at `root`."""

    root: Path
    model_name: str

    def debug_log(self, rank: int = 0) -> Path:
        """The text log that holds everything."""
        return self._log(f"{rank}-2.txt")

    def info_log(self, rank: int = 0) -> Path:
        """The text log without debugging lines."""
        return self._log(f"{rank}-3.txt")

    def json_log(self, rank: int = 0) -> Path:
        """The log as one JSON object a line."""
        return self._log(f"{rank}.jsonl")

    @property
    def checkpoints(self) -> Path:
        """The folder of this run's checkpoints, and of no other run's."""
        return self.root / "checkpoints" / self.model_name

    def checkpoint(self, epoch: int, batch: int = 0) -> Path:
        """The checkpoint (a folder) after whole epochs, or in the middle of the one after them."""
        name = f"epoch-{epoch}" if batch == 0 else f"epoch-{epoch + 1}-batch-{batch}"
        return self.checkpoints / name

    def saved(self) -> list[Place]:
        """Places that have a checkpoint, oldest first."""
        names = (path.name for path in self.checkpoints.glob("epoch-*"))
        matches = (re.fullmatch(r"epoch-(\d+)(?:-batch-(\d+))?", name) for name in names)
        return sorted(
            Place(int(match[1]), 0) if match[2] is None else Place(int(match[1]) - 1, int(match[2]))
            for match in matches
            if match
        )

    def model(
        self, which: Which, epoch: int, *, kind: ModelKind = "generative", extension: str = "onnx"
    ) -> Path:
        """A model file; `epoch` is the last completed one, for the best model too."""
        middle = f"{which}-embedding" if kind == "embedding" else which
        return self.root / "models" / f"sequifier-{self.model_name}-{middle}-{epoch}.{extension}"

    @property
    def tensorboard(self) -> Path:
        """The folder of the log's event files; TensorBoard shows all runs of the folder around it."""
        return self.root / "logs" / "tensorboard" / self.model_name

    def _log(self, ending: str) -> Path:
        return self.root / "logs" / f"sequifier-{self.model_name}-rank{ending}"


def results_path(root: Path, kind: Results, model_id: str, extension: str, target: str = "") -> Path:
    """The results of a model.

    Args:
      root: The project.
      kind: What the results are.
      model_id: The model's id.
      extension: The format.
      target: The target that they are of, if each has a file, as `target_names` calls it.
    """
    name = f"-{target}" if target else ""
    return root / "outputs" / kind / f"{model_id}{name}-{kind}.{extension}"


def target_names(model_id: str, targets: Iterable[str]) -> dict[str, str]:
    """The name that stands for each target of a model in those of its results."""
    # Of 255 bytes; the numbers of input files and underscores need some.
    longest = 255 - len(f"{model_id}--probabilities.parquet".encode()) - 16
    return file_names(targets, max(longest, 16))


def evaluation_path(root: Path, name: str, extension: str) -> Path:
    """The report of an evaluation: json or html."""
    return root / "outputs" / "evaluations" / f"{name}-evaluation.{extension}"


def visualization_path(root: Path, name: str) -> Path:
    """The page that shows how a run, or the runs of a search, were trained."""
    return root / "outputs" / "visualization" / f"{name}-training-visualization.html"


def logged_models(root: Path) -> list[str]:
    """Names of the runs that left a log of rank 0 in the project at `root`."""
    names = (path.name for path in (root / "logs").glob("sequifier-*-rank0*"))
    matches = (re.fullmatch(r"sequifier-(.+)-rank0(?:-[23]\.txt|\.jsonl)", name) for name in names)
    return sorted({match[1] for match in matches if match})


def model_files(
    folder: Path, which: Which, kind: ModelKind, model_name: str | None = None
) -> dict[str, Path]:
    """The newest model file of each run, a graph rather than parameters, by run; the newest run first.

    Args:
      folder: The folder of model files.
      which: The best or the last parameters of a run.
      kind: What the model does.
      model_name: The run; None is any.
    """
    run = ".+" if model_name is None else re.escape(model_name)
    middle = f"{which}-embedding" if kind == "embedding" else which
    name = re.compile(rf"sequifier-({run})-{middle}-\d+\.(onnx|pt)")
    files: dict[Path, str] = {}
    for path in folder.glob("sequifier-*"):
        if match := name.fullmatch(path.name):
            files[path] = match[1]
    newest: dict[str, Path] = {}
    for path in sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        graph = path.with_suffix(".onnx")
        newest.setdefault(files[path], graph if graph in files else path)
    return newest


def search_summaries(root: Path) -> list[Path]:
    """The JSON summaries of hyperparameter searches, the newest first."""
    files = (root / "outputs" / "hyperparameter_search").glob("*.json")
    return sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def part_of(whole: Path, model_id: str, number: int) -> Path:
    """The results of one input file, in the folder that takes the place of the file `whole`.

    Args:
      whole: The file that the results of all data would be in: predictions, probabilities or embeddings.
      model_id: The model's id.
      number: Number of the input file.
    """
    return whole.with_suffix("") / f"{model_id}-{number}-{whole.parent.name}{whole.suffix}"


def data_name(data_path: str) -> str:
    """The name of a data set: the last part of its path, without its last extension."""
    name = Path(data_path).stem
    return Path(data_path).resolve().stem if name in ("", "..") else name


def results_folder(project_root: str) -> Path:
    """The folder in which the splits of all data sets lie."""
    return Path(project_root) / "data"


def split_path(project_root: str, name: str, split: int, suffix: str) -> str:
    """The path of a split as the metadata JSON has it: beginning with `project_root` as the user wrote it.

    Args:
      project_root: Root folder of the project.
      name: Name of the data set.
      split: Number of the split, from 0.
      suffix: End of the name, with its dot; empty for a folder.
    """
    root = project_root if project_root.endswith("/") or not project_root else f"{project_root}/"
    return f"{root}data/{name}-split{split}{suffix}"


def keys_path(project_root: str, name: str) -> Path:
    """The folder of a data set's own ids and times."""
    return results_folder(project_root) / f"{name}-keys"


def keys_beside(split: Path) -> Path:
    """The folder of own ids and times that belongs to a split, which need not exist."""
    return split.with_name(re.sub(r"-split\d+(\.\w+)?$", "", split.name) + "-keys")


def foreign_file(place: Path) -> Path | None:
    """A file in the place of a result that preprocess did not write; None if there is none.

    Args:
      place: Where a split or the keys are to be, in whatever format; need not exist.
    """
    entries = sorted(place.iterdir()) if place.is_dir() else []
    return next((entry for entry in entries if not _OWN_FILES.fullmatch(entry.name)), None)


def metadata_path(project_root: str, name: str) -> Path:
    """The metadata JSON of a data set."""
    return Path(project_root) / "configs" / "metadata_configs" / f"{name}.json"


def work_path(project_root: str, name: str) -> Path:
    """The hidden folder in which a data set is prepared."""
    # A name of 255 bytes is the longest that common file systems take.
    return results_folder(project_root) / f".{name[:48]}.{zlib.crc32(name.encode()):08x}.preprocess"
