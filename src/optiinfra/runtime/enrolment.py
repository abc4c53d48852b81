"""Enrolment files: which customers this process serves, `<customer_id>.json` each."""

from pathlib import Path

import structlog
from pydantic import ValidationError

from optiinfra.api.common import Secret, Text, Wire

log = structlog.get_logger(__name__)


class Enrolment(Wire):
    """One customer: the token that the platform gave, the inference gateway, and a file or folder of golden prompts."""

    customer_id: Text
    agent_token: Secret
    gateway_url: str
    golden_prompts: Path


def read_all(folder: Path) -> dict[str, Enrolment]:
    """The enrolments in the folder, by customer. A file that is none is logged and left out."""
    found: dict[str, Enrolment] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            enrolment = Enrolment.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            continue  # taken away while we were looking
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors())
            log.warning("not an enrolment", path=str(path), wrong=wrong)
            continue
        found[enrolment.customer_id] = enrolment
    return found
