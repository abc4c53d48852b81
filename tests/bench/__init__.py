"""Long measurements, `python -m tests.bench`: how the platform fares, with figures rather than a verdict."""
