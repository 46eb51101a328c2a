"""Every change of a folder is found: of a bit, of a file, and of the manifest."""

import numpy as np
import pytest

from seqjax.artifacts.atomic import check_manifest, write_manifest
from seqjax.errors import ArtifactError


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "inner").mkdir()
    for name in ("a", "inner/b", "inner/c.json"):
        (tmp_path / name).write_bytes(rng.bytes(500))
    write_manifest(tmp_path)
    return tmp_path


def test_what_was_written_is_intact(folder):
    check_manifest(folder)


def test_any_flipped_bit_is_found(folder):
    rng = np.random.default_rng(1)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for _ in range(200):
        path = files[rng.integers(len(files))]
        before = path.read_bytes()
        place = rng.integers(len(before))
        path.write_bytes(
            before[:place] + bytes([before[place] ^ (1 << rng.integers(8))]) + before[place + 1 :]
        )
        with pytest.raises(ArtifactError, match="is damaged"):
            check_manifest(folder)
        path.write_bytes(before)
    check_manifest(folder)


def test_missing_and_additional_files_are_named(folder):
    (folder / "inner" / "b").rename(folder / "inner" / "d")
    with pytest.raises(ArtifactError, match=r"inner/b, inner/d is not as it was written"):
        check_manifest(folder)


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"sha256": 3}'])
def test_a_manifest_that_says_nothing_is_damaged(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest.json is not as it was written"):
        check_manifest(folder)


def test_an_unfinished_folder_is_damaged(folder):
    (folder / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="was not finished"):
        check_manifest(folder)
