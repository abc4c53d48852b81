"""The performance agent: checks that changes keep the latency objective."""
