"""Is it still right? Metrics, drift, budgets and verification; none of them changes a model."""
