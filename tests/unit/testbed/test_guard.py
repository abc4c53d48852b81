"""The production guard: what it refuses, and the reasons."""

import hashlib
import json
import os
import socket
import sys
from pathlib import Path

import pytest

from testbed import environment as environments
from testbed import guard, paths, reuse, startup
from testbed.environment import Settings

KEY = "AKIA" + "Z7EXAMPLEEXAMPLE"
TEMPORARY_KEY = "ASIA" + "Z7EXAMPLEEXAMPLE"
# The addresses that host names resolve to in these tests.
NAMES = {
    "localhost": ["127.0.0.1", "::1"],
    "prod.example": ["203.0.113.7"],
    "mixed.example": ["127.0.0.1", "203.0.113.7"],
    "mine.example": ["127.0.0.1"],
    "nothing.example": [],
}


@pytest.fixture(autouse=True)
def resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int | None, **_: object) -> list[tuple[object, ...]]:
        if host not in NAMES:
            raise socket.gaierror(f"no such name: {host}")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in NAMES[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.fixture(autouse=True)
def harmless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove the caller's own variables and Docker configuration."""
    for name in list(os.environ):
        ours = name.startswith(("AWS_", "DOCKER_", "GOOGLE_", "OPTIINFRA_", "PG")) or name.lower().endswith("_proxy")
        if ours and name != "OPTIINFRA_TIMEOUT_FACTOR":
            monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


def reasons(backend: str | None = None) -> str:
    with pytest.raises(guard.Refused) as refused:
        guard.check_caller(backend)
    return str(refused.value)


def test_check_caller_without_anything_real_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    monkeypatch.setenv("PGCLIENTENCODING", "UTF8")
    monkeypatch.setenv("AWS_PROFILE", "")
    monkeypatch.setenv("OPTIINFRA_REDIS_URL", "redis://:word@127.0.0.1:6380/0")
    monkeypatch.setenv("OPTIINFRA_REDIS_PORT", "6380")
    monkeypatch.setenv("SOME_OTHER_URL", "http://prod.example")
    guard.check_caller("embedded")
    guard.check_caller("compose")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_ACCESS_KEY_ID", TEMPORARY_KEY),
        ("AWS_SOMETHING_NEW", f"id={KEY}"),
        ("OPTIINFRA_AWS_KEY", KEY),
        ("OPTIINFRA_NOTE", f"first, {TEMPORARY_KEY}"),
    ],
)
def test_check_caller_with_a_possibly_real_key_refuses_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    refusal = reasons()
    assert f"unset {name}" in refusal
    assert "looks like a real AWS key" in refusal
    assert "Z7EXAMPLE" not in refusal


def test_check_caller_with_a_key_prefix_inside_a_word_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIINFRA_ADMIN_TOKEN", "f00AKIA1234567890123456")
    monkeypatch.setenv("OPTIINFRA_REGION", "ASIA")
    guard.check_caller()


@pytest.mark.parametrize(
    "name",
    [
        "AWS_PROFILE",
        "AWS_DEFAULT_PROFILE",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_ROLE_ARN",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "CLOUDSDK_CONFIG",
        "GCE_METADATA_HOST",
        "PGHOST",
        "PGHOSTADDR",
        "PGSERVICE",
        "PGSERVICEFILE",
    ],
)
def test_check_caller_with_a_variable_that_leads_to_credentials_refuses(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "anything")
    assert f"unset {name}" in reasons()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://203.0.113.7:8001", "leads to 203.0.113.7, not to loopback"),
        ("http://10.0.0.5:8001", "leads to 10.0.0.5, not"),
        ("http://0.0.0.0:8001", "leads to 0.0.0.0, not"),
        ("http://[2001:db8::1]:8001", "leads to 2001:db8::1, not"),
        ("http://[::ffff:203.0.113.7]:8001", "203.0.113.7"),
        ("http://prod.example", "leads to 203.0.113.7 (resolved from 'prod.example'), not to loopback"),
        ("http://mixed.example", "leads to 203.0.113.7 (resolved from 'mixed.example'), not to loopback"),
        ("http://unknown.example", "'unknown.example', which cannot be resolved"),
        ("http://nothing.example", "leads to no address (resolved from 'nothing.example')"),
        ("http://127.0.0.1:8001@prod.example", "'prod.example'"),
        ("http://prod.example\\@127.0.0.1", "has no host that can be checked"),
        ("postgresql+psycopg://a:b@127.0.0.1:5433,prod.example:5432/db", "'prod.example'"),
        ("postgresql+psycopg://a:b@127.0.0.1/db?host=prod.example:5432", "'prod.example'"),
        ("postgresql+psycopg://a:b@127.0.0.1/db?hostaddr=203.0.113.7", "203.0.113.7"),
        ("redis:///0?host=prod.example", "'prod.example'"),
        ("prod.example:8001", "has no host that can be checked"),
        ("http://[127.0.0.1", "has no host that can be checked"),
    ],
)
def test_check_caller_with_a_remote_address_refuses_and_names_it(
    monkeypatch: pytest.MonkeyPatch, url: str, why: str
) -> None:
    monkeypatch.setenv("OPTIINFRA_ORCHESTRATOR_URL", url)
    refusal = reasons()
    assert "OPTIINFRA_ORCHESTRATOR_URL" in refusal
    assert why in refusal
    assert "all on 127.0.0.1: unset" in refusal
    monkeypatch.delenv("OPTIINFRA_ORCHESTRATOR_URL")
    for name in ("AWS_ENDPOINT_URL_EC2", "AWS_EC2_METADATA_SERVICE_ENDPOINT"):
        monkeypatch.setenv(name, url)
        assert name in reasons()
        monkeypatch.delenv(name)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
def test_check_caller_with_a_proxy_for_loopback_refuses(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://203.0.113.7:3128")
    assert f"unset {name}, or add 127.0.0.1,localhost to NO_PROXY" in reasons()
    monkeypatch.setenv("no_proxy", "internal.example, 127.0.0.1,localhost")
    guard.check_caller()
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv(name, "http://127.0.0.1:3128")
    guard.check_caller()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8001",
        "http://127.8.8.8",
        "http://[::1]:8001",
        "http://[::ffff:127.0.0.1]:8001",
        "http://localhost:8001",
        "http://mine.example",
        "postgresql+psycopg://a:p%40b@localhost:5433,127.0.0.1:5434/db?host=mine.example:5433",
        "",
    ],
)
def test_check_caller_with_a_loopback_address_passes(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("OPTIINFRA_POSTGRESQL_URL", url)
    guard.check_caller()


def test_refusal_of_an_address_hides_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIINFRA_REDIS_URL", "redis://:hidden-word@prod.example/0")
    assert "hidden-word" not in reasons()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DOCKER_HOST", "tcp://203.0.113.7:2375"),
        ("DOCKER_HOST", "ssh://root@prod.example"),
        ("DOCKER_HOST", "tcp://mixed.example:2375"),
        ("DOCKER_CONTEXT", "production"),
    ],
)
def test_check_caller_with_a_remote_docker_refuses_for_compose_only(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert f"unset {name}" in reasons("compose")
    guard.check_caller("embedded")
    guard.check_caller()
    monkeypatch.setenv("OPTIINFRA_BACKEND", "compose")
    assert f"unset {name}" in reasons()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DOCKER_HOST", "unix:///run/docker.sock"),
        ("DOCKER_HOST", "npipe:////./pipe/docker_engine"),
        ("DOCKER_HOST", "tcp://127.0.0.1:2375"),
        ("DOCKER_HOST", "tcp://localhost:2375"),
        ("DOCKER_CONTEXT", "default"),
    ],
)
def test_check_caller_with_a_local_docker_passes(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    guard.check_caller("compose")


def choose_context(folder: Path, name: str, host: str | None = None) -> None:
    """Write what `docker context create` and `docker context use` write."""
    (folder / "config.json").write_text(json.dumps({"auths": {}, "currentContext": name}))
    if host is not None:
        meta = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
        meta.parent.mkdir(parents=True)
        meta.write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host}}}))


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("ssh://root@prod.example", "leads to 203.0.113.7 (resolved from 'prod.example'), not to loopback"),
        ("tcp://203.0.113.7:2376", "leads to 203.0.113.7, not to loopback"),
        (None, "could be an engine on another machine"),
    ],
)
def test_check_caller_with_a_remote_docker_context_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str | None, why: str
) -> None:
    choose_context(tmp_path, "production", host)
    refusal = reasons("compose")
    assert f"{tmp_path / 'config.json'}: its currentContext 'production' {why}" in refusal
    assert "docker context use default" in refusal
    guard.check_caller("embedded")
    monkeypatch.setenv("DOCKER_CONTEXT", "production")
    assert f"DOCKER_CONTEXT=production {why}" in reasons("compose")


@pytest.mark.parametrize("variable", [("DOCKER_CONTEXT", "default"), ("DOCKER_HOST", "unix:///run/docker.sock")])
def test_docker_variables_take_precedence_over_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: tuple[str, str]
) -> None:
    choose_context(tmp_path, "production", "ssh://prod.example")
    monkeypatch.setenv(*variable)
    guard.check_caller("compose")


def test_check_caller_with_a_local_docker_context_passes(tmp_path: Path) -> None:
    choose_context(tmp_path, "desktop-linux", "unix:///home/me/.docker/desktop/docker.sock")
    guard.check_caller("compose")
    choose_context(tmp_path, "default")
    guard.check_caller("compose")
    choose_context(tmp_path, "")
    guard.check_caller("compose")


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_check_caller_with_an_unreadable_docker_configuration_refuses(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert "cannot be read" in reasons("compose")


def test_refusal_lists_every_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("OPTIINFRA_PORTAL_URL", "http://prod.example")
    refusal = reasons()
    assert all(name in refusal for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "OPTIINFRA_PORTAL_URL"))


@pytest.fixture
def described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The description of an environment `mine`, as it was saved."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    made = environments.create("mine", Settings(), None, str(tmp_path / "supervisor.sock"))
    made.state_dir.mkdir(parents=True)
    made.save()
    assert environments.load("mine") == made
    return environments.description("mine")


def edit(file: Path, group: str, part: str, value: str) -> None:
    document = json.loads(file.read_text())
    document[group][part] = value
    file.write_text(json.dumps(document))


@pytest.mark.parametrize(("group", "value"), [("urls", "http://prod.example:4567"), ("ports", "1@prod.example:4567")])
def test_edited_description_is_refused_with_file_and_part(described: Path, group: str, value: str) -> None:
    edit(described, group, "localstack", value)
    with pytest.raises(guard.Refused) as refused:
        startup.running("mine")
    refusal = str(refused.value)
    assert str(described) in refusal
    assert "the address of localstack leads to 203.0.113.7 (resolved from 'prod.example'), not to loopback" in refusal
    assert "invoke clean --name mine" in refusal


def test_edited_description_can_be_cleaned(described: Path) -> None:
    edit(described, "urls", "localstack", "http://prod.example:4567")
    startup.clean("mine", print)
    assert not described.parent.exists()


def test_reuse_of_a_refused_environment_exits_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_name: str) -> None:
        raise guard.Refused(["the address of portal is remote"])

    monkeypatch.setattr(startup, "running", refuse)
    monkeypatch.setattr(sys, "argv", ["reuse"])
    with pytest.raises(SystemExit) as ended:
        reuse.main()
    assert ended.value.code == 2
    assert "the address of portal is remote" in capsys.readouterr().err
