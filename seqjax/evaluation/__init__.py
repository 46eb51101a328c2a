"""Quality of predictions: scores, baselines beside them, intervals, a verdict. numpy alone computes."""
