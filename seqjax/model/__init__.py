"""Arrays to distributions: pure jax and flax, no files."""
