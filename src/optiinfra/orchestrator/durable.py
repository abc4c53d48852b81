"""How durable steps are tried."""

from dbos import StepOptions


def patient(name: str, attempts: int = 6) -> StepOptions:
    """A step that is tried again while it raises, first after half a second, each time twice as late.

    What the outside refuses is an answer that a step returns; what it raises is a defect or a lost store.
    """
    return {"name": name, "retries_allowed": True, "interval_seconds": 0.5, "max_attempts": attempts}
