"""The orchestrator's settings."""

import pytest
from limits import parse
from pydantic import TypeAdapter, ValidationError

from optiinfra.orchestrator.settings import RateLimit, Settings


def test_rate_limits_have_the_documented_defaults() -> None:
    fields = Settings.model_fields
    assert fields["rate_limit_sign_in"].default == parse("10/minute")
    assert fields["rate_limit_sign_up"].default == parse("60/minute")
    assert fields["rate_limit_api"].default == parse("100/second")


def test_rate_limit_that_cannot_be_parsed_is_refused() -> None:
    with pytest.raises(ValidationError, match="couldn't parse rate limit string 'often'"):
        TypeAdapter(RateLimit).validate_python("often")
