"""The performance agent: holds changes to the latency that was promised."""
