"""Where engines listen, and from where the accounts of ClickHouse may be used."""

from pathlib import Path

import pytest

from testbed.engines import settings
from testbed.engines.clickhouse import Accounts, config_xml, users_xml

LOOPBACK, ANYWHERE = "<networks><ip>127.0.0.1</ip><ip>::1</ip></networks>", "<networks><ip>::/0</ip></networks>"


def accounts(*, anywhere: bool) -> Accounts:
    return Accounts("optiinfra", "a", "reader", "b", anywhere=anywhere)


def test_engine_listens_on_loopback_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPTIINFRA_HOST", raising=False)
    assert settings.listen_host() == "127.0.0.1"
    assert "<listen_host>127.0.0.1</listen_host>" in config_xml(8123, Path("/data"), {})
    monkeypatch.setenv("OPTIINFRA_HOST", "0.0.0.0")  # noqa: S104
    assert "<listen_host>0.0.0.0</listen_host>" in config_xml(8123, Path("/data"), {})


def test_clickhouse_accounts_are_for_this_machine_unless_told_otherwise() -> None:
    assert users_xml(accounts(anywhere=False)).count(LOOPBACK) == 3
    opened = users_xml(accounts(anywhere=True))
    assert (opened.count(LOOPBACK), opened.count(ANYWHERE)) == (1, 2)
    assert opened.index(LOOPBACK) < opened.index("</default>", opened.index("<users>")) < opened.index(ANYWHERE)


def test_clickhouse_account_default_creates_the_named_database_only() -> None:
    assert "CREATE DATABASE" not in users_xml(accounts(anywhere=False))
    assert "<query>GRANT CREATE DATABASE ON optiinfra.*</query>" in users_xml(accounts(anywhere=True), "optiinfra")
