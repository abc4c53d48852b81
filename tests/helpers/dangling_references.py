"""Dangling references of every kind, each seeded into a store or cloud for the duration of a context.

Open spot requests (`step_spot_requests`) are left out: the mock cloud fulfils a request in the call that makes it.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qdrant_client import models

from fixtures.aws import IMAGE, Accounts
from optiinfra.api.consistency import Dangling, StoreName
from optiinfra.clouds.protocol import CUSTOMER_TAG, STEP_TAG
from optiinfra.domain.outcomes import DIMENSIONS
from optiinfra.stores.qdrant import point_id
from tests.helpers.customer import Customer
from tests.helpers.stores import Stores

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client


@dataclass(frozen=True)
class SeedTarget:
    """The stores of a platform, and one of its customers with one completed migration."""

    stores: Stores
    customer: Customer

    def value(self, column: str, table: str) -> str:
        """A column of one of the customer's rows in a table."""
        rows = self.stores.sql(f"SELECT {column} FROM {table} WHERE customer_id = %s", self.customer.id)  # noqa: S608
        return str(rows[0][0])

    @contextmanager
    def row(self, table: str, key: str, **columns: object) -> Iterator[None]:
        """Insert a row in PostgreSQL; `key` is the column to delete it by."""
        names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
        self.stores.sql(f"INSERT INTO {table} ({names}) VALUES ({marks})", *columns.values())  # noqa: S608
        try:
            yield
        finally:
            self.stores.sql(f"DELETE FROM {table} WHERE {key} = %s", columns[key])  # noqa: S608

    @contextmanager
    def updated(self, table: str, row_id: str, **columns: str) -> Iterator[None]:
        """Change values in a row of PostgreSQL."""
        names = ", ".join(columns)
        (before,) = self.stores.sql(f"SELECT {names} FROM {table} WHERE id = %s", row_id)  # noqa: S608
        change = f"UPDATE {table} SET {', '.join(f'{name} = %s' for name in columns)} WHERE id = %s"  # noqa: S608
        self.stores.sql(change, *columns.values(), row_id)
        try:
            yield
        finally:
            self.stores.sql(change, *(json.dumps(old) if isinstance(old, dict) else old for old in before), row_id)

    @contextmanager
    def telemetry(self, table: str, customer_id: str, deployment_id: str) -> Iterator[None]:
        """Insert a row in ClickHouse."""
        ids = f"'{customer_id}', '{deployment_id}'"
        self.stores.clickhouse(f"INSERT INTO {table} (customer_id, deployment_id, timestamp) SELECT {ids}, now()")
        try:
            yield
        finally:
            self.stores.clickhouse(f"DELETE FROM {table} WHERE (customer_id, deployment_id) = ({ids})")  # noqa: S608

    @contextmanager
    def presence(self, agent_id: str) -> Iterator[None]:
        """Set an agent's presence key in Redis."""
        self.stores.redis.set(f"{self.stores.namespace}:agent:{agent_id}", "1", ex=60)
        try:
            yield
        finally:
            self.stores.redis.delete(f"{self.stores.namespace}:agent:{agent_id}")

    @contextmanager
    def instance(self, step: str) -> Iterator[str]:
        """Start an instance in the customer's cloud that is tagged with a step; yields its id."""
        (cloud,) = self.customer.seeded.clouds
        ec2: EC2Client = Accounts(cloud.endpoint_url).ec2(cloud.region, cloud.account_id)
        started = ec2.run_instances(
            ImageId=IMAGE,
            InstanceType="g5.xlarge",
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[
                {
                    "ResourceType": "instance",
                    "Tags": [{"Key": STEP_TAG, "Value": step}, {"Key": CUSTOMER_TAG, "Value": self.customer.id}],
                }
            ],
        )
        instance_id = started["Instances"][0]["InstanceId"]
        try:
            yield instance_id
        finally:
            ec2.terminate_instances(InstanceIds=[instance_id])


Reference = tuple[str, str]
"""Id of the referring object, and the missing object that it refers to."""
Seeder = Callable[[SeedTarget], AbstractContextManager[Dangling]]
SEEDERS: dict[str, Seeder] = {}
"""All seeders by name. Each yields the dangling reference that must be reported."""


def seeds(store: StoreName, kind: str) -> Callable[[Callable[[SeedTarget], Iterator[Reference]]], Seeder]:
    """Register a generator that seeds a reference, yields it, and removes it again."""

    def register(generator: Callable[[SeedTarget], Iterator[Reference]]) -> Seeder:
        @contextmanager
        def seeder(target: SeedTarget) -> Iterator[Dangling]:
            with contextmanager(generator)(target) as (referring_id, refers_to):
                yield Dangling(store=store, kind=kind, id=referring_id, refers_to=refers_to)

        SEEDERS[generator.__name__] = seeder
        return seeder

    return register


@seeds("clickhouse", "samples")
def samples_of_an_unknown_customer(target: SeedTarget) -> Iterator[Reference]:
    with target.telemetry("samples", "cust_gone", ""):
        yield "cust_gone/", "customer cust_gone"


@seeds("clickhouse", "samples")
def samples_of_an_unknown_deployment(target: SeedTarget) -> Iterator[Reference]:
    with target.telemetry("samples", target.customer.id, "dep_gone"):
        yield f"{target.customer.id}/dep_gone", "deployment dep_gone"


@seeds("clickhouse", "latency_counts")
def latencies_of_an_unknown_customer(target: SeedTarget) -> Iterator[Reference]:
    with target.telemetry("latency_counts", "cust_gone", "dep_gone"):
        yield "cust_gone/dep_gone", "customer cust_gone"


@seeds("clickhouse", "latency_counts")
def latencies_of_another_customers_deployment(target: SeedTarget) -> Iterator[Reference]:
    deployment = target.value("id", "deployments")
    with (
        target.row("customers", "id", id="cust_other", company_name="x", plan="pro", preferences="{}"),
        target.telemetry("latency_counts", "cust_other", deployment),
    ):
        yield f"cust_other/{deployment}", f"deployment {deployment}"


@seeds("qdrant", "points")
def point_of_no_outcome(target: SeedTarget) -> Iterator[Reference]:
    point = point_id("opt_gone")
    payload = {"customer_id": target.customer.id, "optimization_id": "opt_gone"}
    vector = [1.0] * DIMENSIONS
    target.stores.qdrant.upsert(
        target.stores.collection, [models.PointStruct(id=point, vector=vector, payload=payload)]
    )
    try:
        yield point, f"outcome of opt_gone of {target.customer.id}"
    finally:
        target.stores.qdrant.delete(target.stores.collection, [point])


@seeds("postgresql", "outcomes")
def outcome_without_its_point(target: SeedTarget) -> Iterator[Reference]:
    optimization = target.value("optimization_id", "outcomes")
    (point,) = target.stores.qdrant.retrieve(target.stores.collection, [point_id(optimization)], with_vectors=True)
    target.stores.qdrant.delete(target.stores.collection, [point.id])
    again = models.PointStruct(id=point.id, vector=point.vector, payload=point.payload)
    try:
        yield optimization, f"point of {optimization} in Qdrant"
    finally:
        target.stores.qdrant.upsert(target.stores.collection, [again])


@seeds("redis", "presence")
def presence_of_an_unknown_agent(target: SeedTarget) -> Iterator[Reference]:
    with target.presence("agent_gone"):
        yield "agent_gone", "registered agent agent_gone"


@seeds("redis", "presence")
def presence_of_an_agent_deregistered_long_ago(target: SeedTarget) -> Iterator[Reference]:
    texts = dict.fromkeys(("agent_type", "pool", "version", "hostname", "base_url", "secret_hash"), "x")
    deregistered = {"id": "agent_deregistered", "capabilities": "[]", "deregistered_at": "2026-01-01T00:00:00Z"}
    with target.row("agents", "id", **deregistered, **texts), target.presence("agent_deregistered"):
        yield "agent_deregistered", "registered agent agent_deregistered"


@seeds("postgresql", "events")
def event_of_an_unknown_optimization(target: SeedTarget) -> Iterator[Reference]:
    event = {"id": "evt_odd", "customer_id": target.customer.id, "seq": 2**40, "optimization_id": "opt_gone"}
    with target.row("events", "id", **event, event_type="step_started", source="orchestrator", payload="{}"):
        yield "evt_odd", "optimization opt_gone"


@seeds("postgresql", "similar_outcomes")
def recommendation_based_on_an_unknown_outcome(target: SeedTarget) -> Iterator[Reference]:
    recommendation = target.value("id", "recommendations")
    ((draft,),) = target.stores.sql("SELECT draft FROM recommendations WHERE id = %s", recommendation)
    changed = json.dumps(draft | {"similar_outcomes": ["opt_gone"]})
    with target.updated("recommendations", recommendation, draft=changed):
        yield recommendation, "outcome of opt_gone"


@seeds("postgresql", "optimizations")
def running_optimization_without_a_workflow(target: SeedTarget) -> Iterator[Reference]:
    optimization = target.value("id", "optimizations")
    with target.updated("optimizations", optimization, status="running"):
        yield optimization, f"workflow of {optimization} in progress"


@seeds("postgresql", "optimizations")
def requested_rollback_without_a_workflow(target: SeedTarget) -> Iterator[Reference]:
    optimization = target.value("id", "optimizations")
    with target.updated("optimizations", optimization, rollback_reason="asked for"):
        yield optimization, f"workflow of {optimization} in progress"


@seeds("postgresql", "analyses")
def started_analysis_without_a_workflow(target: SeedTarget) -> Iterator[Reference]:
    analysis = target.value("id", "analyses")
    with target.updated("analyses", analysis, status="started", created_at="2026-01-01T00:00:00Z"):
        yield analysis, f"workflow of {analysis} in progress"


def _workflow(target: SeedTarget, workflow_id: str) -> AbstractContextManager[None]:
    columns = {"workflow_uuid": workflow_id, "status": "SUCCESS", "created_at": 0, "updated_at": 0, "priority": 0}
    return target.row("dbos.workflow_status", "workflow_uuid", **columns)


@seeds("postgresql", "workflows")
def workflow_of_an_unknown_analysis(target: SeedTarget) -> Iterator[Reference]:
    with _workflow(target, "anal_gone"):
        yield "anal_gone", "row anal_gone"


@seeds("postgresql", "workflows")
def workflow_of_an_unknown_optimization(target: SeedTarget) -> Iterator[Reference]:
    with _workflow(target, "opt_gone:rollback"):
        yield "opt_gone:rollback", "row opt_gone"


@seeds("postgresql", "workflow_records")
def step_of_an_unknown_workflow(target: SeedTarget) -> Iterator[Reference]:
    columns = {"workflow_uuid": "anal_gone", "function_id": 1, "function_name": "draft", "output": "null"}
    with target.row("dbos.operation_outputs", "workflow_uuid", **columns, retention_timestamp=0):
        yield "anal_gone", "workflow anal_gone"


@seeds("postgresql", "commands")
def pending_command_of_an_ended_optimization(target: SeedTarget) -> Iterator[Reference]:
    optimization = target.value("id", "optimizations")
    command = {"id": "cmd_odd", "customer_id": target.customer.id, "idempotency_key": f"{optimization}:late:cmd_odd"}
    # Marked as delivered and not due again, so that the connected runtime does not execute it.
    delivered = {"delivered_to": target.value("id", "runtimes"), "delivered_at": "2199-01-01T00:00:00Z"}
    with target.row("commands", "id", **command, **delivered, kind="discover", payload="{}", status="pending"):
        yield "cmd_odd", f"optimization {optimization} in progress"


@seeds("postgresql", "replicas")
def replica_on_an_unknown_instance(target: SeedTarget) -> Iterator[Reference]:
    # With another customer that has no runtime: a runtime would overwrite the deployment every few seconds.
    other = {"id": "cust_other", "company_name": "x", "plan": "pro", "preferences": "{}"}
    account = {"id": "acct_other", "customer_id": "cust_other", "provider": "aws", "region": "us-east-1"}
    (cloud,) = target.customer.seeded.clouds
    # By a role of its own: the customer's role requires the customer's external id.
    role = {"role_arn": f"{cloud.role_arn}-other", "account_id": cloud.account_id}
    replicas = [{"replica_id": "rep_1", "instance_id": "i-gone", "state": "ready"}]
    described = json.dumps({"provider": "aws", "region": "us-east-1", "replicas": replicas})
    deployment = {"id": "dep_other", "customer_id": "cust_other", "name": "x", "described": described}
    with (
        target.row("customers", "id", **other),
        target.row("cloud_accounts", "id", **account, **role, status="discovered"),
        target.row("deployments", "id", **deployment, seen_at="2026-01-01T00:00:00Z"),
    ):
        yield "dep_other/rep_1", "instance i-gone"


@seeds("postgresql", "running_instances")
def running_instance_unknown_to_its_cloud(target: SeedTarget) -> Iterator[Reference]:
    account = target.value("id", "cloud_accounts")
    columns = {"customer_id": target.customer.id, "instance_id": "i-gone", "cloud_account_id": account}
    kind = {"provider": "aws", "region": "us-east-1", "instance_type": "g5.xlarge", "lifecycle": "spot"}
    with target.row("instances", "instance_id", **columns, **kind, state="running", monthly_cost=0.0, seen_at="now"):
        yield "i-gone", f"instance i-gone of account {account}"


@seeds("cloud", "step_instances")
def instance_of_an_unknown_optimization(target: SeedTarget) -> Iterator[Reference]:
    with target.instance("opt_gone:targets") as instance_id:
        yield instance_id, "optimization opt_gone"


@seeds("cloud", "step_instances")
def instance_left_over_by_a_rollback(target: SeedTarget) -> Iterator[Reference]:
    # A second recommendation like the first, executed and rolled back. The restored instance may stay, the other not.
    recommendation = target.value("recommendation_id", "optimizations")
    names = ("analysis_id", "deployment_id", "agent_type", "status", "expires_at")
    (values,) = target.stores.sql(f"SELECT {', '.join(names)} FROM recommendations WHERE id = %s", recommendation)  # noqa: S608
    second = dict(zip(names, values, strict=True)) | {"id": "rec_rolled_back", "customer_id": target.customer.id}
    rolled_back = {"id": "opt_rolled_back", "customer_id": target.customer.id, "recommendation_id": "rec_rolled_back"}
    with (
        target.row("recommendations", "id", **second, draft='{"similar_outcomes": []}', validations="[]"),
        target.row("optimizations", "id", **rolled_back, type="spot_migration", status="rolled_back", trace_id="0"),
        target.instance("opt_rolled_back:restored"),
        target.instance("opt_rolled_back:targets") as left_over,
    ):
        yield left_over, "optimization opt_rolled_back, which is rolled_back"
