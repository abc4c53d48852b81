"""Long measurements with figures instead of a verdict: `python -m tests.bench`."""
