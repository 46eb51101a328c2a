"""Pydantic models of the documented YAML, one file a command. Knows no jax."""
