"""Sums by piece and by position, and what a piece is."""

import numpy as np

from seqjax.evaluation import pieces as module
from seqjax.evaluation.pieces import Pieces, Tally


def test_sums_of_batches_are_those_of_all_items():
    rng = np.random.default_rng(0)
    piece, position = rng.integers(0, 200, 1000), rng.integers(0, 3, 1000)
    scores = rng.integers(0, 9, (1000, 2)).astype(float)
    tally = Tally(2, 3)
    for batch in np.array_split(np.arange(1000), 37):
        tally.add(piece[batch], position[batch], scores[batch])
    by_piece = tally.by_piece(201)
    assert by_piece.shape == (201, 2)
    for number in (0, 57, 199, 200):
        np.testing.assert_array_equal(by_piece[number], scores[piece == number].sum(axis=0))
    np.testing.assert_array_equal(tally.by_position, [scores[position == at].sum(axis=0) for at in range(3)])


def test_an_empty_batch_changes_nothing():
    tally = Tally(2, 1)
    tally.add(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 2)))
    assert not tally.by_piece(3).any()


def test_sequences_are_pieces_where_there_are_enough():
    assert Pieces.of(np.repeat(np.arange(20), 5), 4).block is None
    assert Pieces().unit == "sequences"


def test_few_sequences_are_cut_into_blocks_longer_than_a_window():
    assert Pieces.of(np.repeat(np.arange(19), 100), 4).block == 38
    assert Pieces.of(np.zeros(100, np.int64), 30).block == 31
    assert Pieces(31).unit == "blocks of 31 consecutive windows"


def test_pieces_are_numbered_as_they_appear():
    pieces = Pieces()
    assert pieces.numbers(np.array([7, 7, 3]), np.array([0, 1, 0])).tolist() == [0, 0, 1]
    assert pieces.numbers(np.array([3, 9]), np.array([1, 0])).tolist() == [1, 2]
    assert len(pieces) == 3


def test_blocks_of_different_sequences_are_different():
    pieces = Pieces(2)
    sequence, number = np.array([1, 1, 1, 2, 2]), np.array([0, 1, 2, 0, 2])
    assert pieces.numbers(sequence, number).tolist() == [0, 0, 1, 2, 3]


def test_very_many_sequences_share_numbers(monkeypatch):
    monkeypatch.setattr(module, "LARGEST_NUMBER_OF_PIECES", 8)
    pieces = Pieces()
    sequences = np.arange(1000)
    found = pieces.numbers(sequences, np.zeros_like(sequences))
    assert found[:8].tolist() == list(range(8))
    assert len(pieces) == 8
    assert np.bincount(found, minlength=8).min() > 50
    assert pieces.numbers(sequences, np.zeros_like(sequences)).tolist() == found.tolist()
