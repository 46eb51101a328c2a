"""Rounds of successive halving."""

from seqjax.sweep.halving import budgets, kept


def test_rounds_grow_until_the_last_epoch():
    assert budgets(1, 3, 27) == [1, 3, 9, 27]
    assert budgets(2, 2, 9) == [2, 4, 8, 9]
    assert budgets(5, 3, 4) == [4]


def test_the_best_are_kept_in_order():
    losses = {0: 3.0, 1: 1.0, 2: 2.0, 3: 1.0, 4: 9.0, 5: 8.0, 6: 7.0}
    assert kept(losses, 3) == [1, 2, 3]
    assert kept(losses, 7) == [1]
    assert kept({4: 2.0}, 3) == [4]
