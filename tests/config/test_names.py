"""Names that become files and columns: refused, or kept apart."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqjax.config.names import Names, checked_name, file_names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "not empty"),
        ("  ", "not empty"),
        (".", "a name of its own"),
        ("..", "a name of its own"),
        ("a/b", "slash"),
        ("../x", "slash"),
        ("a\\b", "slash"),
        ("a\nb", "control"),
        ("a\0", "control"),
        ("a\x7f", "control"),
        ("\u2028", "not empty"),
        ("a\u2028b", "control"),
        ("\udc80", "control"),
        ("é" * 101, "at most 200 bytes"),
    ],
)
def test_no_name_of_a_file(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_name(name)


@pytest.mark.parametrize("name", ["a", "...", ".a", "a.b", "a b", "größe", "日本", "-x", "a" * 200, "👩‍💻"])
def test_a_name_of_a_file(name: str, tmp_path: Path) -> None:
    assert checked_name(name) == name
    (tmp_path / name).touch()


def test_targets_keep_their_names_where_they_can() -> None:
    assert file_names(["a/b", "a_b", "sample"]) == {"a/b": "a_b_", "a_b": "a_b", "sample": "sample"}
    assert file_names(["a\\b", "a/b", "A_B", "x\ny"]) == {
        "a\\b": "a_b_",
        "a/b": "a_b__",
        "A_B": "A_B",
        "x\ny": "x_y",
    }


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), unique=True, max_size=8))
def test_files_never_clash(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    parts = file_names(names, 60)
    assert list(parts) == names
    assert len({part.casefold() for part in parts.values()}) == len(names)
    folder = tmp_path_factory.mktemp("names")
    for part in parts.values():
        (folder / f"m-{part}-probabilities.csv").touch()
    assert len(list(folder.iterdir())) == len(names)


@given(st.lists(st.sampled_from(["a", "a_", "a__", "b"])), st.sets(st.sampled_from(["a", "a_", "b_"])))
def test_free_names_differ(wanted: list[str], taken: set[str]) -> None:
    names = Names(taken)
    free = [names.free(name) for name in wanted]
    assert len({*free, *taken}) == len(free) + len(taken)
    assert all(
        name.startswith(want) and not name[len(want) :].strip("_")
        for name, want in zip(free, wanted, strict=True)
    )
