"""From a model and windows to predictions."""
