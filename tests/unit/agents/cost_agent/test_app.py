"""The cost agent's settings."""

from datetime import timedelta

import pytest

from optiinfra.agents.cost_agent.app import Settings


def settings(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    addresses = dict.fromkeys(("ORCHESTRATOR_URL", "QDRANT_URL", "CLICKHOUSE_URL", "CLICKHOUSE_USER"), "x")
    secrets = {
        name: f"{name} of the unit tests, long enough"
        for name in ("ENROLMENT_SECRET", "QDRANT_API_KEY", "CLICKHOUSE_PASSWORD")
    }
    for name, value in {**addresses, **secrets, **variables}.items():
        monkeypatch.setenv(f"OPTIINFRA_{name}", value)
    return Settings()


def test_idle_grace_is_a_day_unless_the_variable_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings(monkeypatch).idle_grace_seconds == timedelta(days=1).total_seconds()
    assert settings(monkeypatch, IDLE_GRACE_SECONDS="2").idle_grace_seconds == 2.0


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_idle_grace_must_be_a_positive_time(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    with pytest.raises(ValueError, match="idle_grace_seconds"):
        settings(monkeypatch, IDLE_GRACE_SECONDS=value)
