"""Security tests: each proves one promise against the running services."""
