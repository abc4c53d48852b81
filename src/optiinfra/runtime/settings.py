"""What the runtime is told by its environment."""

from pathlib import Path

from pydantic import Field

from optiinfra.kit.settings import ServiceSettings


class RuntimeSettings(ServiceSettings):
    """`runtime_enrolments` is the folder that holds a file a customer; `state_dir` is where the status is written."""

    orchestrator_url: str
    runtime_enrolments: Path
    state_dir: Path
    scrape_seconds: float = Field(default=2.0, gt=0)
