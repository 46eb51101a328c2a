"""Quality of predictions: scores of models and baselines, intervals, a verdict. numpy alone computes."""
