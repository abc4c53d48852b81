"""The orchestrator: the only writer to the stores. One folder per concept; `app.py` wires them."""
