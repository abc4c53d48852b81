"""The production guard in processes of their own: commands and pytest end before anything is started."""

import os
import subprocess
import sys

import pytest

from testbed import environment as environments
from testbed import paths, startup
from testbed.environment import Settings
from testbed.waiting import stretched

KEY = "AKIA" + "Z7EXAMPLEEXAMPLE"


def invoke(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "invoke", *words],
        cwd=paths.ROOT,
        # The invalid port ends the start before its first process even if the guard fails to.
        env=os.environ | {"OPTIINFRA_REDIS_PORT": "none"} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=stretched(60),
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    ("command", "variables", "name"),
    [
        (["start-test-env"], {"AWS_ACCESS_KEY_ID": KEY}, "AWS_ACCESS_KEY_ID"),
        (["start-test-env", "--backend", "compose"], {"DOCKER_HOST": "tcp://203.0.113.7:2375"}, "DOCKER_HOST"),
        (["seed-estate", "fixtures/estates/acme.yaml"], {"AWS_PROFILE": "production"}, "AWS_PROFILE"),
        (["demo"], {"OPTIINFRA_AWS_ENDPOINT_URL": "https://203.0.113.7"}, "OPTIINFRA_AWS_ENDPOINT_URL"),
    ],
)
def test_command_with_a_refused_variable_exits_2_before_anything_starts(
    command: list[str], variables: dict[str, str], name: str
) -> None:
    environment = f"guard-{os.getpid()}"
    done = invoke(*command, "--name", environment, **variables)
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"unset {name}" in done.stderr
    assert done.stdout == ""
    assert not paths.state_dir(environment).exists()
    assert not paths.lock_file(environment).exists()


DUMMY = """
from pathlib import Path

def test_that_needs_the_environment(environment):
    Path("ran").touch()
"""


@pytest.mark.parametrize("workers", [[], ["-n", "1"]])
def test_pytest_with_a_refused_variable_exits_2_before_the_first_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: list[str]
) -> None:
    # If the guard fails, the fixture finds no such environment instead of starting one.
    monkeypatch.setenv("OPTIINFRA_TESTENV", "guard-absent")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    pytester.makepyfile(DUMMY)
    result = pytester.runpytest_subprocess("-p", "testbed.plugin", *workers)
    assert result.ret == 2
    result.stderr.fnmatch_lines(["*unset AWS_ACCESS_KEY_ID*"])
    assert not (pytester.path / "ran").exists()


@pytest.mark.parametrize("workers", [[], ["-n", "1"]])
def test_pytest_with_a_remote_address_in_the_description_exits_2(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: list[str]
) -> None:
    name = f"guard-{os.getpid()}-{len(workers)}"
    made = environments.create(name, Settings(), None, "/nowhere/supervisor.sock")
    made.state_dir.mkdir(parents=True)
    try:
        made.save()
        saved = environments.description(name)
        saved.write_text(saved.read_text().replace(made.urls()["localstack"], "http://203.0.113.7:4567"))
        monkeypatch.setenv("OPTIINFRA_TESTENV", name)
        pytester.makepyfile(DUMMY)
        result = pytester.runpytest_subprocess("-p", "testbed.plugin", *workers)
    finally:
        startup.clean(name, print)
    assert result.ret == 2
    result.stderr.fnmatch_lines(["*the address of localstack leads to 203.0.113.7, not to loopback*"])
    assert not (pytester.path / "ran").exists()
