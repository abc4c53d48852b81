"""The invoke tasks as an operator uses them: start, check, lose a part, check, clean."""

import os
from pathlib import Path
from typing import Any

import pytest

from testbed import paths
from testbed.environment import is_free
from testbed.waiting import wait_until
from tests.helpers.customers import ESTATES
from tests.helpers.own_environment import OwnEnvironment, own_environment

KILLED = "cost-agent"


def test_killed_part_is_reported_and_restarted_and_clean_removes_everything() -> None:
    with own_environment(f"supervision-{os.getpid()}") as own:
        code, rows = own.health()
        assert code == 0, rows
        assert all(row["version"] for row in rows.values())
        assert all(row["latency_ms"] is not None for row in rows.values() if row["name"] != "runtime")
        again = own.invoke("start-test-env")
        assert again.returncode == 0, "starting twice is no error"
        assert again.stdout.splitlines()[-1] == "■ Environment Ready! Proceed to test execution."

        own.process("optiinfra.agents.cost_agent").kill()

        code, rows = own.health()
        assert code == 1
        assert rows[KILLED]["status"] != "healthy", rows[KILLED]
        others = [name for name, row in rows.items() if row["status"] != "healthy" and name != KILLED]
        assert others == [], "only the killed part is unhealthy"
        _, rows = wait_until(own.health, f"{KILLED} to be restarted", 60, accept=lambda seen: seen[0] == 0)
        assert rows[KILLED]["restarts"] == 1

        assert own.invoke("clean").returncode == 0
        assert own.processes() == []
        assert not paths.state_dir(own.name).exists()
        assert [port for port in own.document["ports"].values() if not is_free(port)] == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("replicas: 2", "replicas: -2", "deployments.0.replicas: Input should be greater than 0 (got -2)"),
        ("p4de.24xlarge", "m5.large", "unknown instance type 'm5.large'; allowed: p4d.24xlarge"),
        ("p4de.24xlarge", "g5.xlarge", "vllm-prod-1 cannot start on g5.xlarge: tensor_parallel_size 8, but"),
        ("customer:", "customer: [", "not YAML: "),
    ],
)
def test_seed_estate_refuses_an_invalid_file_with_a_message(
    environment: dict[str, Any], tmp_path: Path, old: str, new: str, said: str
) -> None:
    file = tmp_path / "estate.yaml"
    file.write_text((ESTATES / "acme.yaml").read_text().replace(old, new, 1))
    done = OwnEnvironment(environment["name"]).invoke("seed-estate", str(file), "--json")
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
