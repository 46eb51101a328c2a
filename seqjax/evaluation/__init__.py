"""How good predictions are: scores, baselines beside them, intervals, a verdict. numpy alone computes."""
