"""`invoke demo` and `invoke seed-estate`: provision an estate, and run a cost analysis on it."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

from testbed import loopback, paths
from testbed.environment import Environment, SetupError
from testbed.waiting import stretched, wait_until

SAMPLE_ESTATE = paths.ROOT / "fixtures" / "estates" / "acme.yaml"
TRAFFIC_SECONDS = 60.0
ANALYSIS_SECONDS = 120.0


def seed(environment: Environment, file: Path, suffix: str | None) -> dict[str, Any]:
    """Provision the estate that a file describes, and return the document that `fixtures.provision` prints.

    It runs as a separate process because the testbed imports no fixtures. Progress goes to stderr. SetupError when it
    fails.
    """
    command = [sys.executable, "-m", "fixtures.provision", str(file), "--json"]
    command += ["--environment", str(environment.state_dir / "environment.json")]
    command += ["--suffix", suffix] if suffix else []
    done = subprocess.run(command, cwd=paths.ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(f"provisioning the estate of {file} failed")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def analyse(environment: Environment, customer: dict[str, Any], say: Callable[[str], None]) -> None:
    """Wait for measured traffic, then start a cost analysis as the customer and wait for its result."""
    began = datetime.now(UTC)
    url = environment.url("orchestrator")
    estate = f"{url}/customers/{customer['customer_id']}"
    credentials = {"username": customer["email"], "password": customer["password"]}
    with loopback.session() as session:
        login = session.post(f"{url}/auth/login", json=credentials, timeout=stretched(10))
        login.raise_for_status()
        session.headers["Authorization"] = f"Bearer {login.json()['access_token']}"
        for deployment in customer["deployments"]:
            say(f"waiting for measured traffic of {deployment['name']}")
            _await_traffic(session, estate, deployment, began)
        started = session.post(f"{estate}/analyze", json={"agent_type": "cost"}, timeout=stretched(10))
        started.raise_for_status()
        address = f"{url}/analyses/{started.json()['analysis_id']}"
        analysis = wait_until(
            lambda: session.get(address, timeout=stretched(10)).json(),
            "the cost agent's analysis",
            ANALYSIS_SECONDS,
            accept=lambda seen: seen.get("status") in ("completed", "failed"),
        )
    if analysis["status"] == "failed":
        raise SetupError(f"the analysis failed: {analysis.get('error')}")
    count = len(analysis["recommendation_ids"])
    made = f"The cost agent made {count} recommendation{'' if count == 1 else 's'}."
    say(f"{made} {analysis.get('summary') or ''}".rstrip())


def _await_traffic(session: requests.Session, estate: str, deployment: dict[str, Any], began: datetime) -> None:
    """Wait for a throughput above zero, without which agents reject every recommendation."""
    figures = {
        "metric_type": "throughput",
        "resource_id": deployment["deployment_id"],
        "start_time": began.isoformat(),
    }
    wait_until(
        lambda: session.get(f"{estate}/metrics", params=figures, timeout=stretched(10)).json(),
        f"measured traffic of {deployment['name']}",
        TRAFFIC_SECONDS,
        accept=lambda points: any(point["value"] > 0 for point in points),
    )
