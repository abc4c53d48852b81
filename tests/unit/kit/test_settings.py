"""Settings of services: secrets that are missing, weak or equal are refused, and none is shown."""

import pytest
from pydantic import ValidationError

from optiinfra.kit.settings import Concealed, OwnSecret, OwnSecrets, ServiceSettings, load

FIRST, SECOND, THIRD = (f"{start}-5f0c31d9a7b24e68" * 2 for start in ("one", "two", "three"))


class Settings(ServiceSettings):
    first_key: OwnSecret
    second_key: OwnSecret
    previous_keys: OwnSecrets = ()
    store_url: Concealed = ""


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIINFRA_FIRST_KEY", FIRST)
    monkeypatch.setenv("OPTIINFRA_SECOND_KEY", SECOND)


def test_load_with_strong_secrets_returns_settings_that_show_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIINFRA_PREVIOUS_KEYS", f'["{THIRD}"]')
    monkeypatch.setenv("OPTIINFRA_STORE_URL", "postgresql://user:hunter2@db")
    settings = load(Settings)
    assert (settings.first_key, settings.second_key, settings.previous_keys) == (FIRST, SECOND, (THIRD,))
    for shown in (repr(settings), str(settings)):
        assert "host='127.0.0.1'" in shown
        assert not any(secret in shown for secret in (FIRST, SECOND, THIRD, "hunter2"))


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ("", "has fewer than 32 characters"),
        (FIRST[:31], "has fewer than 32 characters"),
        ("x" * 48, "is not random"),
        ("change-me-5f0c31d9a7b24e68-abcdefgh", "is not random"),
        ("the-DEFAULT-signing-key-0123456789abcdef", "is not random"),
        ("your-secret-5f0c31d9a7b24e68-abcdefgh", "is not random"),
        (FIRST, "equals OPTIINFRA_FIRST_KEY"),
    ],
)
def test_load_with_a_weak_secret_exits_and_names_the_variable_but_not_the_value(
    monkeypatch: pytest.MonkeyPatch, secret: str, reason: str
) -> None:
    monkeypatch.setenv("OPTIINFRA_SECOND_KEY", secret)
    with pytest.raises(SystemExit) as refused:
        load(Settings)
    assert f"OPTIINFRA_SECOND_KEY {reason}" in str(refused.value)
    assert not any(value in str(refused.value) for value in (FIRST, SECOND, secret or FIRST))
    with pytest.raises(ValidationError) as raised:
        Settings()
    assert "input_value" not in str(raised.value), "it shows the beginning and the end of what was set"


def test_load_with_a_weak_or_equal_previous_secret_exits(monkeypatch: pytest.MonkeyPatch) -> None:
    for listed, reason in ((f'["{THIRD[:8]}"]', "has fewer than 32 characters"), (f'["{FIRST}"]', "equals")):
        monkeypatch.setenv("OPTIINFRA_PREVIOUS_KEYS", listed)
        with pytest.raises(SystemExit, match=f"OPTIINFRA_PREVIOUS_KEYS {reason}"):
            load(Settings)


def test_load_without_a_secret_or_with_an_invalid_list_exits_and_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIINFRA_PREVIOUS_KEYS", THIRD)
    with pytest.raises(SystemExit, match="previous_keys") as refused:
        load(Settings)
    assert THIRD not in str(refused.value)
    monkeypatch.delenv("OPTIINFRA_PREVIOUS_KEYS")
    monkeypatch.delenv("OPTIINFRA_SECOND_KEY")
    with pytest.raises(SystemExit, match="OPTIINFRA_SECOND_KEY: Field required") as refused:
        load(Settings)
    assert FIRST not in str(refused.value)
