"""What `seqjax train` trains on: where the windows lie, what memory they take, which batches they make."""

import logging

import numpy as np
from jaxtyping import Int

from seqjax.config.load import resolve_path, resolve_split
from seqjax.config.metadata import Metadata
from seqjax.config.schema import Schema
from seqjax.config.train import TrainConfig
from seqjax.data.formats import load_windows
from seqjax.errors import ConfigError, Problem
from seqjax.training.setup import Data
from seqjax.windows.batches import Loader
from seqjax.windows.order import Order
from seqjax.windows.windows import Windows

logger = logging.getLogger(__name__)

_WINDOWS_TO_NAME = 8


class TrainingData:
    """The data of a run.

    Args:
      config: The run's.
      metadata: What preprocess said about the data.
      schema: The run's columns.
    """

    def __init__(self, config: TrainConfig, metadata: Metadata, schema: Schema) -> None:
        self._config = config
        self._metadata = metadata
        self._schema = schema

    def windows(self) -> tuple[Windows, Windows]:
        """The training and the validation windows, in memory or mapped.

        Raises:
          ConfigError: Nothing says where they are.
          DataError: They cannot be used.
        """
        config = self._config
        paths = [str(resolve_split(config.project_root, path)) for path in self._metadata.split_paths]
        if not paths and not (config.training_data_path and config.validation_data_path):
            raise ConfigError(
                f"The training configuration of {config.model_name!r}",
                [Problem("training_data_path", "is required, since the metadata names no splits.")],
            )
        training = self._load(config.training_data_path or paths[0])
        return training, self._load(config.validation_data_path or paths[min(1, len(paths) - 1)])

    def batches(self, training: Windows, validation: Windows) -> Data:
        """The windows in the batches of this run."""
        config = self._config
        size, known = config.training_spec.batch_size, len(validation)

        def order(epoch: int) -> Order:
            count = len(training)
            return Order(count, min(size, max(count, 1)), seed=config.seed, epoch=epoch)

        statistics = self._metadata.selected_columns_statistics
        return Data(
            training,
            validation,
            order,
            Order(known, min(size, max(known, 1)), shuffle=False),
            {name: row.std for name, row in statistics.items()},
            loader=self._loader,
            describe=lambda rows: described(training, rows),
        )

    def _loader(self, windows: Windows, columns: tuple[str, ...]) -> Loader:
        """What gathers batches of data that stays on disk."""
        spec = self._config.training_spec
        return Loader(
            windows,
            columns,
            in_ram=spec.load_full_data_to_ram,
            num_workers=spec.num_workers,
            max_ram_gb=spec.max_ram_gb,
        )

    def _load(self, name: str) -> Windows:
        config, metadata, spec = self._config, self._metadata, self._config.training_spec
        path = resolve_path(config.project_root, name, or_here=True)
        windows = load_windows(
            path,
            config.read_format or metadata.write_format or "parquet",
            column_kinds=self._schema.columns,
            padding=metadata.padding,
            n_classes=self._schema.n_classes,
            max_ram_gb=None if spec.load_full_data_to_ram else spec.max_ram_gb,
        ).crop(config.seq_length)
        logger.info("[INFO] Loaded %s: %d windows of %d items.", path, len(windows), config.seq_length + 1)
        return windows


def described(windows: Windows, rows: Int[np.ndarray, "n"]) -> str:
    """Which windows these are, by sequence and item positions; the first few of them."""
    names = []
    for row in rows[:_WINDOWS_TO_NAME, None]:
        slots = np.asarray([windows.seq_length + 1 - int(windows.length(row)[0]), windows.seq_length])
        first, last = windows.positions(row, slots)[0]
        names.append(f"sequence {windows.sequence_id(row)[0]} items {first} to {last}")
    more = len(rows) - len(names)
    return "; ".join(names) + (f"; and {more} more" if more else "")
