"""seqjax: from a table of event sequences to a trained, exported causal transformer."""

__version__ = "0.1.0"
