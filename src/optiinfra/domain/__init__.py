"""Pure rules and types: no I/O, no framework, nothing of ours imported."""
