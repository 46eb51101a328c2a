"""From configuration to optax."""
