"""The performance tests, which run alone."""
