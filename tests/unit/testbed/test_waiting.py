"""Waits end, and say what they saw."""

import pytest

from testbed import waiting
from testbed.waiting import WaitTimeoutError, wait_until


def test_the_accepted_answer_is_returned() -> None:
    answers = iter([0, 0, 7])
    assert wait_until(lambda: next(answers), "a number", 5, poll=0) == 7


def test_a_missed_deadline_says_what_was_last_seen() -> None:
    with pytest.raises(WaitTimeoutError, match=r"waited 0 s for completion; last seen: 'pending'"):
        wait_until(lambda: "pending", "completion", 0, accept=lambda seen: seen == "done")
    assert waiting.unfinished_wait() == "waiting for completion; last seen: 'pending'"


def test_transient_errors_mean_not_yet() -> None:
    refused = [OSError("refused")]

    def probe() -> int:
        if refused:
            raise refused.pop()
        return 1

    assert wait_until(probe, "an answer", 5, transient=(OSError,), poll=0) == 1
    assert waiting.unfinished_wait() is None


def test_other_errors_end_the_wait_at_once() -> None:
    def probe() -> int:
        raise KeyError("broken")

    with pytest.raises(KeyError):
        wait_until(probe, "an answer", 60, transient=(OSError,))


def test_deadlines_are_stretched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIINFRA_TIMEOUT_FACTOR", "2.5")
    assert waiting.stretched(10) == 25


@pytest.mark.parametrize("value", ["0", "-1", "fast", "nan"])
def test_a_factor_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OPTIINFRA_TIMEOUT_FACTOR", value)
    with pytest.raises(ValueError, match="OPTIINFRA_TIMEOUT_FACTOR"):
        waiting.timeout_factor()
