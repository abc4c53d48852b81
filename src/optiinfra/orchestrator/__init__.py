"""The orchestrator: the one writer. A folder a concept; `app.py` wires them."""
