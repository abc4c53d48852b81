"""The orchestrator's settings."""

import pytest
from limits import parse
from pydantic import TypeAdapter, ValidationError

from optiinfra.orchestrator.settings import Networks, RateLimit, Settings


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
