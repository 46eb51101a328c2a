"""Which class is taken for which."""

import numpy as np

from seqjax.evaluation.targets import MOST_TRACKED, Confusion


def test_the_commonest_classes_come_first_and_the_others_together():
    truth = np.array([4, 4, 4, 2, 2, 3, 5])
    chosen = np.array([4, 2, 5, 2, 4, 3, 4])
    confusion = Confusion(6)
    confusion.add(truth[:3], chosen[:3])
    confusion.add(truth[3:], chosen[3:])
    classes, counts = confusion.commonest(2)
    assert classes.tolist() == [4, 2]
    assert counts.tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 1]]
    assert counts.sum() == len(truth)
    assert confusion.true_counts.tolist() == [0, 0, 2, 1, 3, 1]
    assert confusion.chosen_counts.tolist() == [0, 0, 2, 1, 3, 1]


def test_classes_that_do_not_occur_are_not_shown():
    confusion = Confusion(50)
    confusion.add(np.array([7, 7]), np.array([7, 8]))
    classes, counts = confusion.commonest(10)
    assert classes.tolist() == [7]
    assert counts.tolist() == [[1, 1], [0, 0]]


def test_a_tie_goes_to_the_lower_id():
    confusion = Confusion(5)
    confusion.add(np.array([3, 2]), np.array([3, 2]))
    assert confusion.commonest(1)[0].tolist() == [2]


def test_of_very_many_classes_those_that_are_likely_are_told_apart():
    n_classes = MOST_TRACKED + 500
    likely = np.concatenate([np.arange(500, n_classes), [n_classes - 1] * 3])
    confusion = Confusion(n_classes, likely)
    confusion.add(
        np.array([n_classes - 1, n_classes - 1, 10, 10, 10]), np.array([n_classes - 1, 10, 10, 10, 600])
    )
    classes, counts = confusion.commonest(3)
    assert classes.tolist() == [n_classes - 1]
    assert counts.tolist() == [[1, 1], [0, 3]]
    assert confusion.true_counts[10] == 3


def test_nothing_at_all():
    classes, counts = Confusion(4).commonest(3)
    assert (classes.tolist(), counts.tolist()) == ([], [[0]])
