"""Windows over rows, the batches they make, and the order in which these come; on numpy alone."""
