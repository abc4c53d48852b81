"""The environment's verbs, as an operator uses them: start, check, lose a part, check, clean."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from testbed import paths
from testbed.environment import is_free
from testbed.waiting import stretched, wait_until

NAME = f"supervision-{os.getpid()}"
KILLED = "cost-agent"


def invoke(*words: str) -> subprocess.CompletedProcess[str]:
    """One verb on this module's own environment; output goes to pipes that nothing outlives."""
    command = [sys.executable, "-m", "invoke", *words, "--name", NAME]
    return subprocess.run(
        command,
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=stretched(180),
        stdin=subprocess.DEVNULL,
    )


def health() -> tuple[int, dict[str, Any]]:
    """Exit code, and row by part."""
    done = invoke("health-check", "--json")
    return done.returncode, {row["name"]: row for row in json.loads(done.stdout)["parts"]}


def processes(env_id: str) -> list[psutil.Process]:
    """Everything that belongs to the environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("OPTIINFRA_ENV_ID") == env_id:
                found.append(process)
        except psutil.Error:
            continue  # it ended while we looked
    return found


@pytest.fixture
def status() -> Iterator[dict[str, Any]]:
    """A started environment's document."""
    try:
        started = invoke("start-test-env")
        assert started.returncode == 0, started.stdout + started.stderr
        yield json.loads(invoke("status", "--json").stdout)
    finally:
        invoke("clean")


def test_a_killed_part_is_named_and_brought_back_and_clean_leaves_nothing(status: dict[str, Any]) -> None:
    code, rows = health()
    assert code == 0, rows
    assert all(row["version"] and row["latency_ms"] is not None for row in rows.values() if row["name"] != "runtime")
    assert invoke("start-test-env").returncode == 0, "starting twice is no error"

    module = "optiinfra.agents.cost_agent"
    (victim,) = [p for p in processes(status["env_id"]) if module in p.cmdline()]
    victim.kill()

    code, rows = health()
    assert code == 1
    assert rows[KILLED]["status"] != "healthy", rows[KILLED]
    others = [name for name, row in rows.items() if row["status"] != "healthy" and name != KILLED]
    assert others == [], "nothing else may be blamed"
    _, rows = wait_until(health, f"{KILLED} to be back", 60, accept=lambda seen: seen[0] == 0)
    assert rows[KILLED]["restarts"] == 1

    ports = set(status["ports"].values())
    assert invoke("clean").returncode == 0
    assert processes(status["env_id"]) == []
    assert not paths.state_dir(NAME).exists()
    assert [port for port in ports if not is_free(port)] == []
