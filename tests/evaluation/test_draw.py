"""Random rows of a stream: how many, which, and each with the same chance."""

import numpy as np

from seqjax.evaluation.examples import RandomRows


def drawn(size, n, batch, seed):
    rows = RandomRows(size, seed)
    for first in range(0, n, batch):
        number = np.arange(first, min(first + batch, n))
        rows.add({"number": number, "pair": np.stack([number, -number], axis=1)})
    return rows.rows()


def test_rows_stay_together_and_in_order():
    found = drawn(20, 300, 7, seed=1)
    assert len(found["number"]) == 20
    assert (np.diff(found["number"]) > 0).all()
    np.testing.assert_array_equal(found["pair"], np.stack([found["number"], -found["number"]], axis=1))


def test_the_batches_do_not_matter():
    np.testing.assert_array_equal(drawn(15, 200, 200, seed=3)["number"], drawn(15, 200, 1, seed=3)["number"])
    assert drawn(15, 200, 50, seed=3)["number"].tolist() != drawn(15, 200, 50, seed=4)["number"].tolist()


def test_fewer_rows_than_asked_for_are_all_kept():
    assert drawn(20, 5, 2, seed=0)["number"].tolist() == [0, 1, 2, 3, 4]


def test_every_row_has_the_same_chance():
    counts = np.zeros(40)
    for seed in range(600):
        counts[drawn(10, 40, 9, seed)["number"]] += 1
    assert counts.sum() == 6000
    assert abs(counts - 150).max() < 5 * np.sqrt(150 * 0.75)


def test_no_rows():
    assert RandomRows(0, 0).rows() == {}
    rows = RandomRows(0, 0)
    rows.add({"number": np.arange(3)})
    assert rows.rows() == {}
