"""The production guard: what it refuses, why, and that nothing was started or called by then."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from testbed import environment as environments
from testbed import guard, paths, reuse, startup
from testbed.environment import Settings
from testbed.waiting import stretched

KEY = "AKIA" + "Z7EXAMPLEEXAMPLE"
TEMPORARY_KEY = "ASIA" + "Z7EXAMPLEEXAMPLE"
# What names resolve to here.
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
    """A caller whose own variables, and Docker's files, are not what a test is about."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "DOCKER_", "OPTIINFRA_")) and name != "OPTIINFRA_TIMEOUT_FACTOR":
            monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


def reasons(backend: str | None = None) -> str:
    with pytest.raises(guard.Refused) as refused:
        guard.check_caller(backend)
    return str(refused.value)


def test_a_caller_without_anything_real_may_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
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
def test_what_looks_like_a_real_key_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    said = reasons()
    assert f"unset {name}" in said
    assert "looks like a real AWS key" in said
    assert "Z7EXAMPLE" not in said


def test_letters_within_a_word_are_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
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
    ],
)
def test_what_leads_to_a_persons_credentials_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
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
        ("http://prod.example", "leads to 203.0.113.7 (by the name 'prod.example'), not to loopback"),
        ("http://mixed.example", "leads to 203.0.113.7 (by the name 'mixed.example'), not to loopback"),
        ("http://unknown.example", "'unknown.example', which cannot be resolved"),
        ("http://nothing.example", "leads to no address (by the name 'nothing.example')"),
        ("http://127.0.0.1:8001@prod.example", "'prod.example'"),
        ("http://prod.example\\@127.0.0.1", "names no host that can be checked"),
        ("postgresql+psycopg://a:b@127.0.0.1:5433,prod.example:5432/db", "'prod.example'"),
        ("postgresql+psycopg://a:b@127.0.0.1/db?host=prod.example:5432", "'prod.example'"),
        ("postgresql+psycopg://a:b@127.0.0.1/db?hostaddr=203.0.113.7", "203.0.113.7"),
        ("redis:///0?host=prod.example", "'prod.example'"),
        ("prod.example:8001", "names no host that can be checked"),
        ("http://[127.0.0.1", "names no host that can be checked"),
    ],
)
def test_an_address_elsewhere_is_refused_with_what_it_leads_to(
    monkeypatch: pytest.MonkeyPatch, url: str, why: str
) -> None:
    monkeypatch.setenv("OPTIINFRA_ORCHESTRATOR_URL", url)
    said = reasons()
    assert "OPTIINFRA_ORCHESTRATOR_URL" in said
    assert why in said
    assert "all on 127.0.0.1: unset" in said
    monkeypatch.delenv("OPTIINFRA_ORCHESTRATOR_URL")
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", url)
    assert "AWS_ENDPOINT_URL_EC2" in reasons()


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
def test_loopback_by_any_name_is_allowed(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("OPTIINFRA_POSTGRESQL_URL", url)
    guard.check_caller()


def test_an_addresss_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_remote_docker_is_refused_where_docker_is_used(
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
def test_this_machines_docker_is_allowed(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
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
        ("ssh://root@prod.example", "leads to 203.0.113.7 (by the name 'prod.example'), not to loopback"),
        ("tcp://203.0.113.7:2376", "leads to 203.0.113.7, not to loopback"),
        (None, "could be an engine on another machine"),
    ],
)
def test_a_remote_context_is_refused_wherever_it_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str | None, why: str
) -> None:
    choose_context(tmp_path, "production", host)
    said = reasons("compose")
    assert f"{tmp_path / 'config.json'}: its currentContext 'production' {why}" in said
    assert "docker context use default" in said
    guard.check_caller("embedded")
    monkeypatch.setenv("DOCKER_CONTEXT", "production")
    assert f"DOCKER_CONTEXT=production {why}" in reasons("compose")


@pytest.mark.parametrize("variable", [("DOCKER_CONTEXT", "default"), ("DOCKER_HOST", "unix:///run/docker.sock")])
def test_dockers_variables_go_before_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: tuple[str, str]
) -> None:
    choose_context(tmp_path, "production", "ssh://prod.example")
    monkeypatch.setenv(*variable)
    guard.check_caller("compose")


def test_this_machines_context_is_allowed(tmp_path: Path) -> None:
    choose_context(tmp_path, "desktop-linux", "unix:///home/me/.docker/desktop/docker.sock")
    guard.check_caller("compose")
    choose_context(tmp_path, "default")
    guard.check_caller("compose")
    choose_context(tmp_path, "")
    guard.check_caller("compose")


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_choice_of_docker_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert "cannot be read" in reasons("compose")


def test_every_reason_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("OPTIINFRA_PORTAL_URL", "http://prod.example")
    said = reasons()
    assert all(name in said for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "OPTIINFRA_PORTAL_URL"))


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
def test_an_edited_description_is_refused_by_file_and_part(described: Path, group: str, value: str) -> None:
    edit(described, group, "localstack", value)
    with pytest.raises(guard.Refused) as refused:
        startup.running("mine")
    said = str(refused.value)
    assert str(described) in said
    assert "the address of localstack leads to 203.0.113.7 (by the name 'prod.example'), not to loopback" in said
    assert "invoke clean --name mine" in said


def test_an_edited_description_can_still_be_cleaned(described: Path) -> None:
    edit(described, "urls", "localstack", "http://prod.example:4567")
    startup.clean("mine", print)
    assert not described.parent.exists()


def test_a_session_that_asks_for_an_environment_to_reuse_is_refused_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_name: str) -> None:
        raise guard.Refused(["the address of portal leads elsewhere"])

    monkeypatch.setattr(startup, "running", refuse)
    monkeypatch.setattr(sys, "argv", ["reuse"])
    with pytest.raises(SystemExit) as ended:
        reuse.main()
    assert ended.value.code == 2
    assert "the address of portal leads elsewhere" in capsys.readouterr().err


def invoke(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "invoke", *words],
        cwd=paths.ROOT,
        # Without the guard the start would still end before its first process: this is no port.
        env=os.environ | {"OPTIINFRA_REDIS_PORT": "none"} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=stretched(60),
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    ("verb", "variables", "named"),
    [
        (["start-test-env"], {"AWS_ACCESS_KEY_ID": KEY}, "AWS_ACCESS_KEY_ID"),
        (["start-test-env", "--backend", "compose"], {"DOCKER_HOST": "tcp://203.0.113.7:2375"}, "DOCKER_HOST"),
        (["seed-estate", "fixtures/estates/acme.yaml"], {"AWS_PROFILE": "production"}, "AWS_PROFILE"),
        (["demo"], {"OPTIINFRA_AWS_ENDPOINT_URL": "https://203.0.113.7"}, "OPTIINFRA_AWS_ENDPOINT_URL"),
    ],
)
def test_verbs_exit_2_with_the_reason_before_anything_starts(
    verb: list[str], variables: dict[str, str], named: str
) -> None:
    name = f"guard-{os.getpid()}"
    done = invoke(*verb, "--name", name, **variables)
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"unset {named}" in done.stderr
    assert done.stdout == ""
    state = paths.state_dir(name)
    assert not state.exists()
    assert not (state.parent / f".{name}.lock").exists()


DUMMY = """
from pathlib import Path

def test_that_needs_the_environment(environment):
    Path("ran").touch()
"""


@pytest.mark.parametrize("workers", [[], ["-n", "1"]])
def test_pytest_exits_2_with_the_reason_before_the_first_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: list[str]
) -> None:
    # Without the guard the fixture would find no such environment, rather than start one.
    monkeypatch.setenv("OPTIINFRA_TESTENV", "guard-absent")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    pytester.makepyfile(DUMMY)
    result = pytester.runpytest_subprocess("-p", "testbed.plugin", *workers)
    assert result.ret == 2
    result.stderr.fnmatch_lines(["*unset AWS_ACCESS_KEY_ID*"])
    assert not (pytester.path / "ran").exists()


@pytest.mark.parametrize("workers", [[], ["-n", "1"]])
def test_pytest_exits_2_when_the_environments_description_leads_elsewhere(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: list[str]
) -> None:
    name = f"guard-{os.getpid()}-{len(workers)}"
    made = environments.create(name, Settings(), None, "/nowhere/supervisor.sock")
    made.state_dir.mkdir(parents=True)
    try:
        made.save()
        edit(environments.description(name), "urls", "localstack", "http://203.0.113.7:4567")
        monkeypatch.setenv("OPTIINFRA_TESTENV", name)
        pytester.makepyfile(DUMMY)
        result = pytester.runpytest_subprocess("-p", "testbed.plugin", *workers)
    finally:
        startup.clean(name, print)
    assert result.ret == 2
    result.stderr.fnmatch_lines(["*the address of localstack leads to 203.0.113.7, not to loopback*"])
    assert not (pytester.path / "ran").exists()
