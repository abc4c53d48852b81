"""The manifest of parts agrees with the contract and with itself."""

import importlib.util

import pytest

from testbed.parts import PARTS, find_part, programs

FIXED_PORTS = {
    "postgresql": 5433,
    "clickhouse": 8124,
    "redis": 6380,
    "qdrant": 6334,
    "localstack": 4567,
    "orchestrator": 8001,
    "portal": 3001,
    "cost-agent": 8011,
    "performance-agent": 8012,
    "resource-agent": 8013,
    "application-agent": 8014,
    "inference-fleet": 8020,
    "cloud-front": 8022,
}


def test_fixed_ports_are_those_of_the_contract() -> None:
    assert {part.name: part.port for part in PARTS if part.port} == FIXED_PORTS
    assert [part.name for part in PARTS if part.port is None] == ["runtime"]


def test_sandbox_process_runs_fleet_and_cloud_front() -> None:
    sandbox = [part for part in PARTS if part.program == "sandbox"]
    assert [part.name for part in sandbox] == ["inference-fleet", "cloud-front"]
    assert len(programs()) == len(PARTS) - 1


@pytest.mark.parametrize("part", programs().values(), ids=lambda part: part.program)
def test_program_has_a_runnable_module(part) -> None:  # type: ignore[no-untyped-def]
    spec = importlib.util.find_spec(part.module)
    assert spec is not None
    if spec.submodule_search_locations:
        assert importlib.util.find_spec(f"{part.module}.__main__") is not None


def test_postgresql_is_stopped_by_sigint_without_its_group() -> None:
    postgresql = find_part("postgresql")
    assert (postgresql.stop_signal, postgresql.stop_group) == ("INT", False)


def test_agents_get_no_credentials_to_write() -> None:
    forbidden = {
        "POSTGRESQL_URL",
        "CLICKHOUSE_WRITER",
        "QDRANT_WRITER",
        "REDIS_URL",
        "ADMIN_TOKEN",
        "TOKEN_SIGNING_KEY",
        "TASK_SIGNING_KEY",
    }
    for part in PARTS:
        if part.kind in ("agent", "runtime", "sandbox") or part.name == "portal":
            assert not forbidden & set(part.variables), part.name


def test_find_part_with_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"choose one of postgresql, .*runtime"):
        find_part("postgres")
