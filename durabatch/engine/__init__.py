"""One verb per module, one write transaction per verb: what can happen to a run and its items."""
