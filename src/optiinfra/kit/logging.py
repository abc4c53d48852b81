"""JSON logs on stdout, one trace id from the click to the step."""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

TRACE_HEADER = "x-trace-id"


def configure(service: str, version: str) -> None:
    """Write every record of this process, ours and the libraries', as one JSON line on stdout."""
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
    for chatty in ("httpx", "httpcore", "botocore", "urllib3", "alembic.runtime.plugins"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def trace_id() -> str:
    """The trace that the current task belongs to, empty outside any."""
    return str(structlog.contextvars.get_contextvars().get("trace_id", ""))


def bind_trace(trace: str) -> Mapping[str, Any]:
    """Let the current task, and what it starts, log and call under this trace."""
    return structlog.contextvars.bind_contextvars(trace_id=trace)
