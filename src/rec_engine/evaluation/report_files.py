"""What a training run leaves of its quality beside the model."""

REPORT, METRICS = "report.html", "metrics.json"
"""For people and for machines, both of the same figures."""
