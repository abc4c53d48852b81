"""The integration tests: one promise each, against the running services."""
