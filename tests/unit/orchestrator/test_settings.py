"""The orchestrator's settings."""

import pytest
from limits import parse
from pydantic import TypeAdapter, ValidationError

from optiinfra.kit.settings import load
from optiinfra.orchestrator.settings import Networks, RateLimit, Settings

SECRETS = (
    "CLICKHOUSE_PASSWORD",
    "QDRANT_API_KEY",
    "TOKEN_SIGNING_KEY",
    "TASK_SIGNING_KEY",
    "ENROLMENT_SECRET",
    "ADMIN_TOKEN",
    "AUDIT_KEY",
    "PORTAL_SECRET",
)
ADDRESSES = (
    "POSTGRESQL_URL",
    "CLICKHOUSE_URL",
    "CLICKHOUSE_USER",
    "REDIS_URL",
    "QDRANT_URL",
    "AWS_ENDPOINT_URL",
    "AWS_PRINCIPAL_ARN",
)


def test_rate_limits_have_the_documented_defaults() -> None:
    fields = Settings.model_fields
    assert fields["rate_limit_sign_in"].default == parse("10/minute")
    assert fields["rate_limit_sign_up"].default == parse("60/minute")
    assert fields["rate_limit_api"].default == parse("100/second")


def test_rate_limit_that_cannot_be_parsed_is_refused() -> None:
    with pytest.raises(ValidationError, match="couldn't parse rate limit string 'often'"):
        TypeAdapter(RateLimit).validate_python("often")


@pytest.mark.parametrize("text", ["", "everywhere", "10.0.0.1/8", "127.0.0.0/8,"])
def test_agent_networks_that_are_none_are_refused(text: str) -> None:
    assert Settings.model_fields["agent_networks"].default == "127.0.0.0/8,::1/128"
    with pytest.raises(ValidationError):
        TypeAdapter(Networks).validate_python(text)


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable that has no default."""
    for name in (*SECRETS, *ADDRESSES):
        monkeypatch.setenv(f"OPTIINFRA_{name}", f"{name} of the unit tests, long enough")


@pytest.mark.usefixtures("complete")
def test_settings_with_strong_secrets_are_loaded_and_show_none() -> None:
    shown = repr(load(Settings))
    assert not any(f"{name} of the unit tests" in shown for name in (*SECRETS, "POSTGRESQL_URL", "REDIS_URL"))


@pytest.mark.usefixtures("complete")
@pytest.mark.parametrize("name", SECRETS)
def test_settings_without_a_secret_or_with_a_weak_or_equal_one_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    other = "ADMIN_TOKEN" if name != "ADMIN_TOKEN" else "AUDIT_KEY"
    for weak in ("short", f"{other} of the unit tests, long enough"):
        monkeypatch.setenv(f"OPTIINFRA_{name}", weak)
        with pytest.raises(SystemExit, match=rf"OPTIINFRA_{name}\b") as refused:
            load(Settings)
        assert weak not in str(refused.value)
    monkeypatch.delenv(f"OPTIINFRA_{name}")
    with pytest.raises(SystemExit, match=f"OPTIINFRA_{name}: Field required"):
        load(Settings)
