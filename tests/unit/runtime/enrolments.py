"""Enrolment files for tests."""

import json
from pathlib import Path


def enrol(folder: Path, name: str, token: str = "t") -> Path:  # noqa: S107
    """Write the enrolment of a customer."""
    wanted = {"customer_id": name, "agent_token": token, "gateway_url": "http://g", "golden_prompts": "p"}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(wanted))
    return path
