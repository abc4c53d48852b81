"""JSON logs on stdout, with one trace id from the user's click to the workflow's step."""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

TRACE_HEADER = "x-trace-id"


def configure(service: str, version: str) -> None:
    """Write every log record of this process, including libraries', as one JSON line on stdout."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )

    def stamp(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"], event["version"] = service, version
        return event

    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                stamp,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for noisy in ("httpx", "httpcore", "botocore", "urllib3", "alembic.runtime.plugins"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def trace_id() -> str:
    """The trace id of the current task, or an empty string."""
    return str(structlog.contextvars.get_contextvars().get("trace_id", ""))


def bind_trace(trace: str) -> Mapping[str, Any]:
    """Set the trace id of the current task and of the tasks that it starts, for logs and outgoing requests."""
    return structlog.contextvars.bind_contextvars(trace_id=trace)
