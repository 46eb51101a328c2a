"""`seqjax preprocess`: a table of event sequences becomes splits of windows and a metadata JSON.

csv is read once, as text, into typed columns on disk, and a table that is not in order is sorted there. Its
rows then stream by twice: once to learn id maps and statistics and to count, once to be encoded and written.
The second pass always writes arrow shards, which are compact and can be written bit by bit; other formats are
written from them, so that memory stays bounded whatever the format.

All of it happens in a hidden sibling of the results, which keeps notes of how far the work is. When every
split is complete, they take their names one after the other, and the metadata JSON comes last. So a run that
fails or is killed leaves the result of an earlier one as it was, and a killed one can be taken up again.
"""

import json
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from seqjax.artifacts.atomic import remove
from seqjax.artifacts.layout import (
    data_name,
    foreign_file,
    keys_path,
    metadata_path,
    results_folder,
    split_path,
    work_path,
)
from seqjax.artifacts.workspace import Workspace, workspace
from seqjax.config.base import suggestion
from seqjax.config.keys import KeyColumns, key_columns
from seqjax.config.load import resolve_path
from seqjax.config.metadata import Metadata
from seqjax.config.names import checked_name
from seqjax.config.preprocess import PreprocessConfig
from seqjax.config.resolve import load_metadata
from seqjax.config.schema import ColumnKind, ColumnRole, kind_of
from seqjax.console import Advance, progress
from seqjax.data import shards
from seqjax.data.columns import OTHER, id_dtype
from seqjax.data.fitting import Learner, precomputed_maps
from seqjax.data.formats import FORMATS, Files
from seqjax.data.passes import SplitSize, Survey, encoded, survey
from seqjax.data.sorting import OrderedRows
from seqjax.data.splits import Between, ByValue, Given, Splitting, Within
from seqjax.data.table_files import TableFiles
from seqjax.data.tables import CutOffs, Selection, Table, TableReader, open_files
from seqjax.errors import ConfigError, DataError, Problem
from seqjax.runtime import available_cores
from seqjax.version import __version__

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_NOTES = 5.0
"""Time after which the second pass notes how far it is."""
WITHOUT_EFFECT = ("continue_preprocessing", "n_cores", "process_by_file")
"""Keys that an interrupted run may be continued with other values of."""
SURVEY, WRITTEN, RENDERED = "survey", "written", "rendered"
"""Names of the notes in the work folder."""


def preprocess(config: PreprocessConfig) -> Metadata:
    """Runs the step.

    Args:
      config: What to read, how to cut it, what to write.

    Returns:
      The metadata, as it was written to configs/metadata_configs/[NAME].json.

    Raises:
      DataError: The table cannot be used, a split would be empty, or the result cannot be written.
      ConfigError: An interrupted run cannot be continued, since something has changed.
    """
    source = resolve_path(config.project_root, config.data_path, or_here=True)
    try:
        name = checked_name(data_name(config.data_path))
    except ValueError as error:
        problem = Problem("data_path", f"the last part of the path names the results, and {error}")
        raise ConfigError("The configuration of preprocess", [problem]) from None
    _check_places(config, source, name)
    earlier = _earlier_metadata(config)
    files = open_files(source, config.read_format)
    reader = _reader(files, config, earlier)
    fingerprint = _fingerprint(config, reader)
    folder = work_path(config.project_root, name)
    try:
        with workspace(folder, fingerprint, resume=config.continue_preprocessing) as work:
            if work.resumed:
                logger.info("Continuing the run that was interrupted.")
            typed = reader.typed(work.folder / "table")
            threads = config.n_cores or available_cores()
            rows = OrderedRows(typed, work.folder / "sorted")
            run = _Run(config, name, source, rows, reader.chosen, earlier=earlier, work=work, threads=threads)
            return run.result()
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"The result cannot be written to {error.filename or folder}: {reason}.") from error


@dataclass(frozen=True)
class _Run:
    config: PreprocessConfig
    name: str
    source: Path
    rows: OrderedRows
    chosen: Selection
    earlier: Metadata | None
    work: Workspace
    threads: int

    def result(self) -> Metadata:
        splitting = self._splitting()
        summary = self._surveyed(splitting)
        _check_splits(summary.splits, self.config)
        metadata = _metadata(self.config, self.name, summary, self.chosen, self.earlier)
        self._write_shards(splitting, summary)
        places = [Path(path) for path in metadata.split_paths]
        staged = [
            self._shard_folder(split)
            if self.config.write_format == "arrow"
            else self._rendered(split, place, metadata)
            for split, place in enumerate(places)
        ]
        for split, (size, place) in enumerate(zip(summary.splits, places, strict=True)):
            logger.info(
                "Split %d: %d rows of %d sequences%s, %d windows: %s.",
                split,
                size.rows,
                size.sequences,
                f" (and {size.context} earlier rows as context)" if size.context else "",
                size.windows,
                place,
            )
        text = self.work.folder / "metadata.json"
        text.write_text(json.dumps(metadata.model_dump(exclude_none=True)), encoding="utf-8")
        place = metadata_path(self.config.project_root, self.name)
        keys, keys_place = self.rows.keys_folder, keys_path(self.config.project_root, self.name)
        if keys is None:
            # What an earlier run left there is not of this data.
            remove(keys_place)
        results = {keys: keys_place} if keys is not None else {}
        self.work.publish({**results, **dict(zip(staged, places, strict=True)), text: place})
        logger.info("Wrote %s.", place)
        return metadata

    # The first pass
    # --------------------------------------------------------------------------------

    def _surveyed(self, splitting: Splitting) -> Survey:
        """The first pass, or its result if an interrupted run had completed it."""
        note = self.work.note(SURVEY)
        summary = Survey.model_validate(note) if note else self._survey(splitting)
        self.work.write_note(SURVEY, summary.model_dump())
        logger.info("Read %s: %d rows of %d sequences.", self.source, summary.rows, summary.sequences)
        if self.rows.keys.columns.are_own:
            logger.info("Sequences are those of %s, in the order of %s.", *self.rows.keys.columns.names)
        kinds = ((name, kind_of(type_)) for name, type_ in summary.column_types.items())
        logger.info("Columns: %s.", ", ".join(f"{name} ({kind})" for name, kind in kinds))
        return summary

    def _survey(self, splitting: Splitting) -> Survey:
        with progress("Learning", None, "rows") as bar:
            summary, borders = survey(
                self.rows, self.config, splitting, self._learner, _with_speed(bar), threads=self.threads
            )
        if borders is not None:
            np.save(self._borders, borders)
        if self.earlier is None:
            return summary
        types = {name: self.earlier.column_types[name] for name in summary.column_types}
        real = [name for name, type_ in summary.column_types.items() if kind_of(type_) == "real"]
        statistics = {name: self.earlier.selected_columns_statistics[name] for name in real}
        encoding = replace(summary.encoding, statistics=statistics)
        values = {name: type_ for name, type_ in self.earlier.value_types.items() if name in types}
        return summary.model_copy(update={"encoding": encoding, "column_types": types, "value_types": values})

    def _learner(self, table: Table) -> Learner:
        kinds = table.kinds
        if self.earlier is not None:
            return Learner(dict.fromkeys(self.chosen.id_maps, "categorical"), given=self.chosen.id_maps)
        most = self.config.max_categories
        for name in most or ():
            if name not in kinds:
                raise DataError(
                    f"max_categories: no column {name!r} is read. {suggestion(name, list(kinds))}"
                )
            if kinds[name] == "real" or name in self.chosen.id_maps:
                what = "is real" if kinds[name] == "real" else "has an id map of its own in configs/id_maps"
                raise DataError(f"max_categories names {name!r}, which {what}. Take it out.")
        return Learner(kinds, given=self.chosen.id_maps, max_categories=most, decided=self.chosen.roles)

    def _splitting(self) -> Splitting:
        config = self.config
        if config.split_method == "by_value":
            return ByValue(config.n_splits, config.split_column or "", self.rows.keys.name)
        ratios = config.split_ratios or []
        if config.split_method == "within_sequence":
            return Within(ratios)
        return Between.drawn(self.rows.n_sequences, ratios, config.seed)

    @property
    def _borders(self) -> Path:
        """The place of the borders of each sequence, where a column decides them."""
        return self.work.folder / "borders.npy"

    # The second pass
    # --------------------------------------------------------------------------------

    def _shard_folder(self, split: int) -> Path:
        return self.work.folder / f"split{split}"

    def _write_shards(self, splitting: Splitting, summary: Survey) -> None:
        note = self.work.note(WRITTEN) or {"chunks": 0, "done": None, "unseen": {}}
        if note.get("finished"):
            return
        with ExitStack() as open_files:
            writers = self._writers(summary, note["done"], open_files)
            unseen = self._encode(splitting, summary, writers, note)
            for writer in writers:
                writer.finish()
        for name, count in unseen.items():
            if count:
                logger.info(
                    "Column %r: %d rows hold a value that its id map lacks (id %d).", name, count, OTHER
                )
        self.work.write_note(WRITTEN, {"finished": True})

    def _encode(
        self, splitting: Splitting, summary: Survey, writers: list[shards.ShardWriter], note: dict[str, Any]
    ) -> dict[str, int]:
        """Writes all chunks after those of the note; returns the number of unseen values by column."""
        if isinstance(splitting, ByValue):
            splitting = Given(np.load(self._borders))
        unseen: dict[str, int] = note["unseen"]
        number, last_note = note["chunks"], time.monotonic()
        with progress("Writing splits", summary.rows, "rows") as bar:
            advance = _with_speed(bar)
            chunks = encoded(
                self.rows, self.config, splitting, summary.encoding, skip=number, threads=self.threads
            )
            for chunk in chunks:
                for writer, windows in zip(writers, chunk.windows, strict=True):
                    if windows is not None:
                        writer.append(windows)
                unseen = {name: unseen.get(name, 0) + count for name, count in chunk.unseen.items()}
                number += 1
                advance(chunk.rows)
                if time.monotonic() - last_note >= SECONDS_BETWEEN_NOTES:
                    for writer in writers:
                        writer.sync()
                    done = [writer.done for writer in writers]
                    self.work.write_note(WRITTEN, {"chunks": number, "done": done, "unseen": unseen})
                    last_note = time.monotonic()
        return unseen

    def _writers(
        self, summary: Survey, done: list[dict[str, Any]] | None, open_files: ExitStack
    ) -> list[shards.ShardWriter]:
        ids = {name: str(id_dtype(n - 1)) for name, n in summary.encoding.n_classes.items()}
        types = {name: ids.get(name, "float32") for name in summary.column_types}
        writers, seq_length = [], self.config.seq_length
        for split, (size, stride) in enumerate(zip(summary.splits, self.config.strides, strict=True)):
            folder = self._shard_folder(split)
            if done is None:
                remove(folder)
            whole = shards.DataSize(
                seq_length,
                stride,
                types,
                rows=size.rows + size.context,
                runs=size.sequences,
                positions=size.positions,
            )
            writer = shards.ShardWriter(folder, whole, done=None if done is None else done[split])
            open_files.callback(writer.close)
            writers.append(writer)
        return writers

    def _rendered(self, split: int, place: Path, metadata: Metadata) -> Path:
        """A split in the format that is asked for."""
        staged = self.work.folder / "results" / place.name
        complete: list[int] = self.work.note(RENDERED) or []
        if split in complete:
            return staged
        remove(staged)
        staged.parent.mkdir(exist_ok=True)
        kinds: dict[str, ColumnKind] = {name: metadata.kind(name) for name in metadata.column_types}
        windows = shards.read(self._shard_folder(split), kinds)
        config = self.config
        files = Files(
            place.name,
            config.batches_per_file,
            merged=config.merge_output is not False,
            padding=metadata.padding,
        )
        FORMATS[config.write_format].write(staged, windows, files)
        self.work.write_note(RENDERED, [*complete, split])
        return staged


def _with_speed(bar: Advance) -> Callable[[int], None]:
    """Advances a bar by a number of rows, and shows rows per second under it."""
    begin, done = time.monotonic(), 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        bar.advance(rows, speed=f"{done / max(time.monotonic() - begin, 1e-3):,.0f} rows/s")

    return advance


def _earlier_metadata(config: PreprocessConfig) -> Metadata | None:
    """The metadata whose maps and statistics are to be applied."""
    if config.metadata_config_path is None:
        return None
    place = resolve_path(config.project_root, config.metadata_config_path, or_here=True)
    metadata = load_metadata(place)
    for name in config.selected_columns or ():
        if name not in metadata.column_types:
            known = suggestion(name, list(metadata.column_types))
            raise DataError(f"{place} says nothing about column {name!r} (selected_columns). {known}")
    return metadata


def _reader(files: TableFiles, config: PreprocessConfig, earlier: Metadata | None) -> TableReader:
    """The table, and all that is known of its columns beforehand."""
    chosen = Selection(
        config.selected_columns,
        max_rows=config.max_rows,
        roles=config.column_roles or {},
        missing_real=config.missing_real,
        missing_values=config.missing_values or [],
        decimal=config.decimal or ".",
        cut_offs=CutOffs(config.split_column, config.split_values or []) if config.split_column else None,
        keys=_keys(config, earlier),
    )
    if earlier is None:
        folder = resolve_path(config.project_root, "configs/id_maps")
        columns = TableReader(files, chosen).features
        maps = precomputed_maps(folder, columns, chosen.roles, config.use_precomputed_maps)
        return TableReader(files, replace(chosen, id_maps=maps))
    names = config.selected_columns or list(earlier.column_types)
    roles: dict[str, ColumnRole] = {name: earlier.kind(name) for name in names}
    roles |= {name: role for name, role in (earlier.column_roles or {}).items() if name in names}
    further = earlier.missing_values if config.missing_values is None else config.missing_values
    return TableReader(
        files,
        replace(
            chosen,
            selected_columns=names,
            roles=roles,
            roles_from="metadata_config_path",
            id_maps={name: earlier.id_maps[name] for name in names if earlier.kind(name) == "categorical"},
            missing_values=further or [],
            decimal=config.decimal or earlier.decimal or ".",
        ),
    )


def _keys(config: PreprocessConfig, earlier: Metadata | None) -> KeyColumns:
    """The columns of ids and times: the configuration's, else those of the metadata that is applied."""
    return key_columns(config) if earlier is None else key_columns(config, earlier)


def _fingerprint(config: PreprocessConfig, reader: TableReader) -> dict[str, Any]:
    """All that the result depends on."""
    files = [*reader.files.files, *resolve_path(config.project_root, "configs/id_maps").glob("*.json")]
    if config.metadata_config_path is not None:
        files.append(resolve_path(config.project_root, config.metadata_config_path, or_here=True))
    sizes = {str(file): file.stat() for file in sorted(files)}
    return {
        **config.model_dump(mode="json", exclude=set(WITHOUT_EFFECT)),
        "files": {name: f"{size.st_size} bytes of {size.st_mtime_ns}" for name, size in sizes.items()},
        "seqjax": __version__,
    }


def _check_places(config: PreprocessConfig, source: Path, name: str) -> None:
    """Nothing of the user's lies where results will, and results will not lie in the input."""
    results = results_folder(config.project_root)
    if source.is_dir() and results.resolve().is_relative_to(source.resolve()):
        raise DataError(
            f"{source} (data_path) holds {results}, where results are written: a later run would take them "
            f"for input. Put the tables into a folder of their own, such as {results / 'events'}."
        )
    for place in [*map(Path, _split_paths(config, name)), keys_path(config.project_root, name)]:
        other = foreign_file(place)
        if other is not None:
            raise DataError(
                f"{place} would be replaced, but holds {other.name!r}, which preprocess did not write. Move "
                "the folder away, or give the input (data_path) another name."
            )


def _split_paths(config: PreprocessConfig, name: str) -> list[str]:
    """The place of each split."""
    suffix = "" if config.merge_output is False else FORMATS[config.write_format].suffix
    return [split_path(config.project_root, name, number, suffix) for number in range(config.n_splits)]


def _check_splits(splits: list[SplitSize], config: PreprocessConfig) -> None:
    for number, size in enumerate(splits):
        if size.rows:
            continue
        if config.split_ratios is None:
            why = f"no {config.split_column} lies between its cut-offs. Use other split_values"
        else:
            few, more = "no sequence is long enough to give it one", "longer sequences"
            if config.split_method == "between_sequences":
                few, more = "there are too few sequences", "more sequences"
            why = (
                f"its share is {config.split_ratios[number]:g}, and {few}. Use a larger share or fewer "
                f"splits (split_ratios), or {more}"
            )
        raise DataError(f"Split {number} gets no rows: {why}.")


def _metadata(
    config: PreprocessConfig, name: str, summary: Survey, chosen: Selection, earlier: Metadata | None
) -> Metadata:
    results = {
        "n_classes": summary.encoding.n_classes,
        "id_maps": summary.encoding.id_maps,
        "split_paths": _split_paths(config, name),
        "column_types": summary.column_types,
        "selected_columns_statistics": summary.encoding.statistics,
        "stride_by_split": config.strides,
        "fit_on": earlier.fit_on if earlier else config.fit_on,
        "missing": summary.missing,
        "value_types": summary.value_types,
        "column_roles": earlier.column_roles if earlier else config.column_roles,
        "missing_values": list(chosen.missing_values) or None,
        "decimal": chosen.decimal if chosen.decimal != "." else None,
        "padding": "zero" if config.padding == "zeros" and config.write_format != "pt" else "null",
        "seqjax_version": __version__,
    }
    keys = _keys(config, earlier).model_dump()
    return Metadata.model_validate(config.model_dump(include=set(Metadata.model_fields)) | results | keys)
