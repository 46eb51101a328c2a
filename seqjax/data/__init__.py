"""Tables to batches of numpy arrays; never jax."""
