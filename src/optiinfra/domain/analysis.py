"""Analyses that agents make of a customer's estate."""

from enum import StrEnum


class AnalysisStatus(StrEnum):
    """State of an analysis; `started` until it ends one way or the other."""

    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
