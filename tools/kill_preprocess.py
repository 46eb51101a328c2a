"""Kills preprocess at random moments and checks that nothing is lost.

    python -m tools.kill_preprocess --kills 50

A first run gives the previous result, and an undisturbed run of another config the expected one. Then runs of
the second config are killed (SIGKILL) at random moments and continued. After every kill each split and the
metadata JSON must be, to the byte, those of the previous or of the expected result; once a run comes through,
everything must be the expected result, and no other file may be left.
"""

import argparse
import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

CHILD = """
import sys
from seqjax.commands import preprocess
from seqjax.config.preprocess import PreprocessConfig
from seqjax.data import formats, sorting, table_files

sorting.ROWS_PER_CHUNK, sorting.ROWS_PER_BUCKET = 500, 2000
table_files.ROWS_PER_PIECE, table_files.BYTES_PER_BLOCK = 300, 1 << 13
formats.ROWS_PER_BLOCK = 2000
preprocess.SECONDS_BETWEEN_NOTES = 0.0
root, write_format, seq_length, go_on = sys.argv[1:]
config = PreprocessConfig(
    project_root=root, data_path="data/t.csv", write_format=write_format, seq_length=int(seq_length),
    split_ratios=[0.7, 0.2, 0.1], stride_by_split=[4, 2, 1], continue_preprocessing=go_on == "continue",
)
print("ready", flush=True)
preprocess.preprocess(config)
"""

Content = dict[str, str]


def table(path: Path, *, in_order: bool) -> None:
    """Writes a table of 150 sequences."""
    rng = np.random.default_rng(7)
    lengths = rng.integers(1, 120, 150)
    n = int(lengths.sum())
    frame = pl.DataFrame(
        {
            "sequenceId": np.repeat(np.arange(150), lengths),
            "itemPosition": np.concatenate([np.arange(length) for length in lengths]),
            "item": rng.integers(0, 300, n).astype(str),
            "price": rng.normal(size=n),
        }
    )
    path.parent.mkdir(parents=True)
    (frame if in_order else frame.sample(fraction=1.0, shuffle=True, seed=1)).write_csv(path)


def content(root: Path) -> Content:
    """The digest of every file of a project but the table, by path."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != "t.csv")
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def start(root: Path, write_format: str, seq_length: int, *, go_on: bool = False) -> subprocess.Popen[bytes]:
    """A run that is about to begin its work."""
    words = [str(root), write_format, str(seq_length), "continue" if go_on else "anew"]
    child = subprocess.Popen([sys.executable, "-c", CHILD, *words], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    return child


def finish(child: subprocess.Popen[bytes]) -> float:
    """Waits for a run; returns its seconds."""
    begin = time.monotonic()
    child.communicate()
    if child.returncode:
        raise SystemExit(f"a run failed with {child.returncode}")
    return time.monotonic() - begin


def check(found: Content, before: Content, expected: Content) -> str | None:
    """What is wrong with the result after a kill; null if nothing is."""
    visible = {name: digest for name, digest in found.items() if "/." not in name}
    splits = {name.split("-split")[1].split("/")[0] for name in before if "-split" in name}
    groups = [[name for name in before if f"-split{split}" in name] for split in splits]
    groups.append([name for name in before if name.startswith("configs/")])
    for group in groups:
        now = [visible.get(name) for name in group]
        if now not in ([before[name] for name in group], [expected[name] for name in group]):
            return f"{group} is neither the previous nor the new result"
    extra = set(visible) - set(before)
    return f"{sorted(extra)} should not be there" if extra else None


def trial(
    folder: Path, write_format: str, *, kills: int, seed: int, in_order: bool = True
) -> tuple[list[str], int]:
    """Kills `kills` runs; returns what went wrong, and how many left work to continue.

    Args:
      folder: An empty folder.
      write_format: The output format.
      kills: How many runs to kill.
      seed: Seed of the moments.
      in_order: Whether the table is sorted.
    """
    chance = random.Random(seed)
    root, other = folder / "project", folder / "undisturbed"
    table(root / "data" / "t.csv", in_order=in_order)
    finish(start(root, write_format, 8))
    before = content(root)
    shutil.copytree(root, other)
    seconds = finish(start(other, write_format, 6))
    shutil.copy2(root / "data" / "t.csv", other / "data" / "t.csv")
    expected = content(other)
    metadata = next(name for name in expected if name.startswith("configs/"))
    text = (other / metadata).read_text().replace(str(other), str(root))
    expected[metadata] = hashlib.sha256(text.encode()).hexdigest()
    wrong, go_on, interrupted = [], False, 0
    for number in range(kills):
        child = start(root, write_format, 6, go_on=go_on)
        time.sleep(chance.uniform(0, seconds))
        child.kill()
        child.communicate()
        fault = check(content(root), before, expected)
        if child.returncode == 0:
            fault = fault or ("came through with another result" if content(root) != expected else None)
            finish(start(root, write_format, 8))
        wrong += [f"kill {number}: {fault}"] if fault else []
        interrupted += any((root / "data").glob(".*.preprocess/run.json"))
        # Now and then a new run takes the place of the interrupted one.
        go_on = chance.random() < 0.9
    finish(start(root, write_format, 6, go_on=True))
    if content(root) != expected:
        wrong.append("the result differs from that of an undisturbed run")
    return wrong, interrupted


def main(words: Sequence[str] | None = None) -> int:
    """Runs trials in all formats; returns the number of faults."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    cases = [("arrow", True), ("arrow", False), ("parquet", True), ("csv", True), ("pt", True)]
    faults = 0
    for number, (write_format, in_order) in enumerate(cases):
        kills = options.kills // len(cases) + (number < options.kills % len(cases))
        with tempfile.TemporaryDirectory() as folder:
            wrong, interrupted = trial(
                Path(folder), write_format, kills=kills, seed=options.seed + number, in_order=in_order
            )
        print(
            f"{write_format}, table {'in order' if in_order else 'shuffled'}: {kills} kills, "
            f"{interrupted} in the middle of work, {wrong or 'nothing lost'}",
            flush=True,
        )
        faults += len(wrong)
    return faults


if __name__ == "__main__":
    sys.exit(main())
