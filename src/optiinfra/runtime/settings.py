"""Settings of the runtime."""

from pathlib import Path

from pydantic import Field

from optiinfra.kit.settings import ServiceSettings


class RuntimeSettings(ServiceSettings):
    """`runtime_enrolments` is the folder with one enrolment file per customer, `state_dir` that of the status file."""

    orchestrator_url: str
    runtime_enrolments: Path
    state_dir: Path
    scrape_seconds: float = Field(default=2.0, gt=0)
