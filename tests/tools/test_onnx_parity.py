"""A slice of the comparison of exported graphs with JAX over random architectures."""

from tools.onnx_parity import TOLERANCE, compare


def test_random_architectures_compute_what_jax_computes() -> None:
    reported: list[tuple[int, float]] = []
    errors, failed = compare(4, 3, lambda number, error: reported.append((number, error)))
    assert len(errors) == 4
    assert failed == []
    assert 0 < max(errors) <= TOLERANCE
    assert reported == list(enumerate(errors, start=1))
