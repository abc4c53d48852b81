"""Enrolment files, one `<customer_id>.json` for each customer that this process serves."""

from pathlib import Path

import structlog
from pydantic import ValidationError

from optiinfra.api.common import Secret, Text, Wire
from optiinfra.runtime.validation_errors import describe

log = structlog.get_logger(__name__)


class Enrolment(Wire):
    """One customer: the platform's token, the inference gateway, and a file or folder of golden prompts."""

    customer_id: Text
    agent_token: Secret
    gateway_url: str
    golden_prompts: Path


class Enrolments:
    """The enrolments of a folder. An unreadable file keeps its last enrolment; a deleted one removes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Path, Enrolment] = {}
        self._errors: dict[Path, str] = {}

    def read(self) -> dict[str, Enrolment]:
        """The current enrolments by customer id. A file that cannot be read is logged once for each error."""
        self._known = {path: found for path in self._paths() if (found := self._load(path))}
        return {enrolment.customer_id: enrolment for enrolment in self._known.values()}

    def _paths(self) -> list[Path]:
        try:
            paths = sorted(path for path in self._folder.iterdir() if path.suffix == ".json")
        except FileNotFoundError:
            return []
        except OSError as error:
            self._log_once(self._folder, str(error))
            return list(self._known)
        self._log_once(self._folder, "")
        return paths

    def _load(self, path: Path) -> Enrolment | None:
        try:
            found = Enrolment.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None  # deleted since the folder was listed
        except OSError as error:
            problem = str(error)
        except ValidationError as error:
            problem = describe(error)
        else:
            self._log_once(path, "")
            return found
        self._log_once(path, problem)
        return self._known.get(path)

    def _log_once(self, path: Path, problem: str) -> None:
        if problem and problem != self._errors.get(path):
            log.warning("enrolment unreadable", path=str(path), error=problem, kept=path in self._known)
        self._errors[path] = problem
