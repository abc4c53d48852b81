"""The environment's verbs, as an operator uses them: start, check, lose a part, check, clean."""

import os

from testbed import paths
from testbed.environment import is_free
from testbed.waiting import wait_until
from tests.helpers.own_environment import own_environment

KILLED = "cost-agent"


def test_a_killed_part_is_named_and_brought_back_and_clean_leaves_nothing() -> None:
    with own_environment(f"supervision-{os.getpid()}") as own:
        code, rows = own.health()
        assert code == 0, rows
        assert all(row["version"] for row in rows.values())
        assert all(row["latency_ms"] is not None for row in rows.values() if row["name"] != "runtime")
        assert own.invoke("start-test-env").returncode == 0, "starting twice is no error"

        own.process("optiinfra.agents.cost_agent").kill()

        code, rows = own.health()
        assert code == 1
        assert rows[KILLED]["status"] != "healthy", rows[KILLED]
        others = [name for name, row in rows.items() if row["status"] != "healthy" and name != KILLED]
        assert others == [], "nothing else may be blamed"
        _, rows = wait_until(own.health, f"{KILLED} to be back", 60, accept=lambda seen: seen[0] == 0)
        assert rows[KILLED]["restarts"] == 1

        assert own.invoke("clean").returncode == 0
        assert own.processes() == []
        assert not paths.state_dir(own.name).exists()
        assert [port for port in own.document["ports"].values() if not is_free(port)] == []
