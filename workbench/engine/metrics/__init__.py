"""What is measured of a run: time, memory, and where else the metrics are logged."""
