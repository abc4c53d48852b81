"""Enrolment files: which customers this process serves, `<customer_id>.json` each."""

from pathlib import Path

import structlog
from pydantic import ValidationError

from optiinfra.api.common import Secret, Text, Wire
from optiinfra.runtime.faults import faults

log = structlog.get_logger(__name__)


class Enrolment(Wire):
    """One customer: the token that the platform gave, the inference gateway, and a file or folder of golden prompts."""

    customer_id: Text
    agent_token: Secret
    gateway_url: str
    golden_prompts: Path


class Enrolments:
    """The enrolments of a folder. What a file said last counts while it cannot be read; only its absence ends it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Path, Enrolment] = {}
        self._wrong: dict[Path, str] = {}

    def read(self) -> dict[str, Enrolment]:
        """The enrolments by customer, as they are now. What cannot be read is logged when that begins or changes."""
        self._known = {path: found for path in self._paths() if (found := self._load(path))}
        return {enrolment.customer_id: enrolment for enrolment in self._known.values()}

    def _paths(self) -> list[Path]:
        try:
            paths = sorted(path for path in self._folder.iterdir() if path.suffix == ".json")
        except FileNotFoundError:
            return []
        except OSError as error:
            self._note(self._folder, str(error))
            return list(self._known)
        self._note(self._folder, "")
        return paths

    def _load(self, path: Path) -> Enrolment | None:
        try:
            found = Enrolment.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None  # taken away while we were looking
        except OSError as error:
            wrong = str(error)
        except ValidationError as error:
            wrong = faults(error)
        else:
            self._note(path, "")
            return found
        self._note(path, wrong)
        return self._known.get(path)

    def _note(self, path: Path, wrong: str) -> None:
        if wrong and wrong != self._wrong.get(path):
            log.warning("not a readable enrolment", path=str(path), wrong=wrong, kept=path in self._known)
        self._wrong[path] = wrong
