"""Waiting: results, deadlines, errors, and what was last seen."""

import pytest

from testbed import waiting
from testbed.waiting import WaitTimeoutError, wait_until


def test_wait_until_returns_the_accepted_result() -> None:
    answers = iter([0, 0, 7])
    assert wait_until(lambda: next(answers), "a number", 5, poll=0) == 7


def test_wait_until_past_its_deadline_says_what_was_last_seen() -> None:
    with pytest.raises(WaitTimeoutError, match=r"waited 0 s for completion; last seen: 'pending'"):
        wait_until(lambda: "pending", "completion", 0, accept=lambda seen: seen == "done")
    assert waiting.unfinished_wait() == "waiting for completion; last seen: 'pending'"


def test_wait_until_retries_after_transient_errors() -> None:
    refused = [OSError("refused")]

    def probe() -> int:
        if refused:
            raise refused.pop()
        return 1

    assert wait_until(probe, "an answer", 5, transient=(OSError,), poll=0) == 1
    assert waiting.unfinished_wait() is None


def test_wait_until_raises_other_errors_at_once() -> None:
    def probe() -> int:
        raise KeyError("broken")

    with pytest.raises(KeyError):
        wait_until(probe, "an answer", 60, transient=(OSError,))


def test_stretched_multiplies_by_the_timeout_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIINFRA_TIMEOUT_FACTOR", "2.5")
    assert waiting.stretched(10) == 25


@pytest.mark.parametrize("value", ["0", "-1", "fast", "nan"])
def test_timeout_factor_that_is_not_positive_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OPTIINFRA_TIMEOUT_FACTOR", value)
    with pytest.raises(ValueError, match="OPTIINFRA_TIMEOUT_FACTOR"):
        waiting.timeout_factor()
