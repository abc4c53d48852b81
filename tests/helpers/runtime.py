"""A customer without an inference fleet, whose runtime the test plays itself."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

import httpx

from fixtures import aws
from fixtures.provision import ProvisionError, SeededCloud, SeededEstate, remove
from optiinfra.api.customers import DiscoveredDeployment, Replica, Slo
from optiinfra.api.telemetry import LatencyCount, Sample, TelemetryBatch
from testbed.waiting import stretched, wait_until
from tests.helpers.accounts import estate_of, signed_up
from tests.helpers.callers import bearer
from tests.helpers.customer import Customer

REGION = "us-east-1"
REMOVAL_SECONDS = 30.0


@contextmanager
def customer_without_fleet(environment: dict[str, Any], **owner_with: str) -> Iterator[Customer]:
    """A new customer with an AWS account that is not onboarded; removed afterwards with its instances.

    `owner_with` are the arguments of `signed_up`.
    """
    urls, account_id = environment["urls"], str(10**11 + uuid.uuid4().int % (9 * 10**11))
    with (
        signed_up(environment, **owner_with) as owner,
        httpx.Client(base_url=urls["orchestrator"], timeout=stretched(15)) as http,
    ):
        cloud = SeededCloud(
            provider="aws",
            region=REGION,
            account_id=account_id,
            declared_account_id=account_id,
            endpoint_url=urls["localstack"],
            role_arn=aws.role_arn(account_id),
        )
        seeded = estate_of(environment, owner, [cloud])
        try:
            http.headers.update(bearer(owner.sign_in(http)["access_token"]))
            yield Customer(environment, seeded, http)
        finally:
            wait_until(
                lambda: _removed(environment, seeded),
                f"the changes of {owner.customer_id} to end, and its removal",
                REMOVAL_SECONDS,
                transient=(ProvisionError,),
            )


def _removed(environment: dict[str, Any], seeded: SeededEstate) -> bool:
    remove(environment, seeded)
    return True


def deployment(name: str, instance_ids: Sequence[str], instance_type: str) -> DiscoveredDeployment:
    """A deployment of one replica on each instance, as a gateway describes it."""
    replicas = [
        Replica(replica_id=f"rep-{one}", instance_id=one, instance_type=instance_type, state="ready")
        for one in instance_ids
    ]
    return DiscoveredDeployment(
        name=name,
        model="meta-llama/Llama-3.1-8B-Instruct",
        provider="aws",
        region=REGION,
        engine_args={"tensor_parallel_size": 1, "gpu_memory_utilization": 0.9, "max_num_seqs": 64},
        weights={replica.replica_id: 1 / len(replicas) for replica in replicas},
        slo=Slo(p95_latency_ms=20_000, quality=0.85),
        interruptible=True,
        replicas=replicas,
    )


@dataclass
class PlayedRuntime:
    """A connected runtime of the customer; `http` sends its token."""

    runtime_id: str
    http: httpx.Client
    deployments: tuple[DiscoveredDeployment, ...] = ()

    @property
    def path(self) -> str:
        """The route of this runtime."""
        return f"/agent-runtime/{self.runtime_id}"

    def report(self, *deployments: DiscoveredDeployment) -> dict[str, str]:
        """Report the inventory; the platform's id of each deployment by name."""
        self.deployments = deployments
        body = {"deployments": [one.model_dump(mode="json") for one in deployments]}
        accepted = call_with(self.http, "PUT", f"{self.path}/inventory", body)
        ids: dict[str, str] = accepted["deployment_ids"]
        return ids

    def send(
        self, samples: Sequence[Sample] = (), latencies: Sequence[LatencyCount] = (), *, key: str | None = None
    ) -> None:
        """Send one batch of telemetry, under an idempotency key if one is given."""
        body = TelemetryBatch.of(samples, latencies).model_dump(mode="json")
        headers = {} if key is None else {"Idempotency-Key": key}
        accepted = call_with(self.http, "POST", f"{self.path}/telemetry", body, headers)
        assert accepted == {"status": "started"}

    @contextmanager
    def working(self) -> Iterator[None]:
        """Report the last inventory again whenever the platform asks. Outside of the context its commands wait."""
        stop = Event()
        thread = Thread(target=self._work_until, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _work_until(self, stop: Event) -> None:
        while not stop.is_set():
            waiting = self.http.get(f"{self.path}/commands", params={"wait": 0.5})
            waiting.raise_for_status()
            for command in waiting.json():
                assert command["kind"] == "discover", f"{command} is more than this runtime can do"
                self.report(*self.deployments)
                call_with(self.http, "POST", f"{self.path}/commands/{command['command_id']}/result", {"ok": True})


@contextmanager
def connected_runtime(customer: Customer, *, hostname: str = "played", version: str = "1") -> Iterator[PlayedRuntime]:
    """A runtime that connects with a new token of the customer."""
    token = customer.post(f"/customers/{customer.id}/agent-install-command")["agent_token"]
    with httpx.Client(base_url=customer.http.base_url, headers=bearer(token), timeout=stretched(15)) as http:
        body = {"customer_id": customer.id, "agent_token": token, "hostname": hostname, "version": version}
        connected = call_with(http, "POST", "/agent-runtime/connect", body)
        yield PlayedRuntime(connected["runtime_id"], http)


def call_with(
    http: httpx.Client, method: str, path: str, body: object, headers: Mapping[str, str] | None = None
) -> Any:
    """The JSON response of a call with the client's own credential; fails unless it succeeded."""
    answer = http.request(method, path, json=body, headers=headers)
    assert answer.is_success, f"{method} {path} answered {answer.status_code}: {answer.text}"
    return answer.json()
