"""What a module logs, whoever configured or used logging before in this process."""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture


@contextmanager
def logged(module: ModuleType) -> Iterator[list[MutableMapping[str, Any]]]:
    """The entries that a module's `log` gets meanwhile, each with its `event` and `log_level`.

    structlog's own `capture_logs` misses loggers that were first used under another configuration.
    """
    capture = LogCapture()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "log", structlog.wrap_logger(None, processors=[capture]))
        yield capture.entries
