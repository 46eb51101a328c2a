"""What a user may write: pydantic models of the documented YAML, one file a command. Knows no jax."""
