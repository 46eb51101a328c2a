"""The pipeline, one step a file."""
