"""A slice of the comparison of exported graphs with JAX over random architectures."""

from tools.onnx_parity import TOLERANCE, compare


def test_random_architectures_compute_what_jax_computes() -> None:
    reported: list[tuple[int, float]] = []
    errors = compare(5, 3, lambda number, error: reported.append((number, error)))
    assert len(errors) == 5
    assert max(errors) <= TOLERANCE
    assert reported == list(enumerate(errors, start=1))
