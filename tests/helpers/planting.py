"""References to what is not there, each planted in a store or cloud for a moment; each yields what must be found.

Open spot requests (`step_orders`) are none of them: the mock cloud fulfils a request in the call that makes it.
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
class Ground:
    """Where to plant: the stores of a platform, and a customer of it with one finished migration."""

    stores: Stores
    customer: Customer

    def of_customer(self, column: str, table: str) -> str:
        """A column of the customer's one row, or any of its rows, in a table."""
        rows = self.stores.sql(f"SELECT {column} FROM {table} WHERE customer_id = %s", self.customer.id)  # noqa: S608
        return str(rows[0][0])

    @contextmanager
    def row(self, table: str, key: str, **columns: object) -> Iterator[None]:
        """A row of PostgreSQL; `key` is the column to find it by."""
        names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
        self.stores.sql(f"INSERT INTO {table} ({names}) VALUES ({marks})", *columns.values())  # noqa: S608
        try:
            yield
        finally:
            self.stores.sql(f"DELETE FROM {table} WHERE {key} = %s", columns[key])  # noqa: S608

    @contextmanager
    def changed(self, table: str, row_id: str, **columns: str) -> Iterator[None]:
        """Other values in a row of PostgreSQL."""
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
        """A row of ClickHouse."""
        owner = f"'{customer_id}', '{deployment_id}'"
        self.stores.clickhouse(f"INSERT INTO {table} (customer_id, deployment_id, timestamp) SELECT {owner}, now()")
        try:
            yield
        finally:
            self.stores.clickhouse(f"DELETE FROM {table} WHERE (customer_id, deployment_id) = ({owner})")  # noqa: S608

    @contextmanager
    def presence(self, agent_id: str) -> Iterator[None]:
        """An agent's key in Redis."""
        self.stores.redis.set(f"{self.stores.namespace}:agent:{agent_id}", "1", ex=60)
        try:
            yield
        finally:
            self.stores.redis.delete(f"{self.stores.namespace}:agent:{agent_id}")

    @contextmanager
    def instance(self, step: str) -> Iterator[str]:
        """A running instance in the customer's cloud, made for a step; its id."""
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


Named = tuple[str, str]
"""Id of what refers, and what it refers to."""
Plant = Callable[[Ground], AbstractContextManager[Dangling]]
PLANTED: dict[str, Plant] = {}


def planted(store: StoreName, kind: str) -> Callable[[Callable[[Ground], Iterator[Named]]], Plant]:
    """Make a plant of a generator that plants, yields how it must be named, and takes away."""

    def register(grow: Callable[[Ground], Iterator[Named]]) -> Plant:
        @contextmanager
        def plant(ground: Ground) -> Iterator[Dangling]:
            with contextmanager(grow)(ground) as (name, refers_to):
                yield Dangling(store=store, kind=kind, id=name, refers_to=refers_to)

        PLANTED[grow.__name__] = plant
        return plant

    return register


@planted("clickhouse", "samples")
def samples_of_an_unknown_customer(ground: Ground) -> Iterator[Named]:
    with ground.telemetry("samples", "cust_gone", ""):
        yield "cust_gone/", "customer cust_gone"


@planted("clickhouse", "samples")
def samples_of_an_unknown_deployment(ground: Ground) -> Iterator[Named]:
    with ground.telemetry("samples", ground.customer.id, "dep_gone"):
        yield f"{ground.customer.id}/dep_gone", "deployment dep_gone"


@planted("clickhouse", "latency_counts")
def latencies_of_an_unknown_customer(ground: Ground) -> Iterator[Named]:
    with ground.telemetry("latency_counts", "cust_gone", "dep_gone"):
        yield "cust_gone/dep_gone", "customer cust_gone"


@planted("clickhouse", "latency_counts")
def latencies_of_another_customers_deployment(ground: Ground) -> Iterator[Named]:
    deployment = ground.of_customer("id", "deployments")
    with (
        ground.row("customers", "id", id="cust_other", company_name="x", plan="pro", preferences="{}"),
        ground.telemetry("latency_counts", "cust_other", deployment),
    ):
        yield f"cust_other/{deployment}", f"deployment {deployment}"


@planted("qdrant", "points")
def point_of_no_outcome(ground: Ground) -> Iterator[Named]:
    point = point_id("opt_gone")
    payload = {"customer_id": ground.customer.id, "optimization_id": "opt_gone"}
    vector = [1.0] * DIMENSIONS
    ground.stores.qdrant.upsert(
        ground.stores.collection, [models.PointStruct(id=point, vector=vector, payload=payload)]
    )
    try:
        yield point, f"outcome of opt_gone of {ground.customer.id}"
    finally:
        ground.stores.qdrant.delete(ground.stores.collection, [point])


@planted("postgresql", "outcomes")
def outcome_without_its_point(ground: Ground) -> Iterator[Named]:
    optimization = ground.of_customer("optimization_id", "outcomes")
    (point,) = ground.stores.qdrant.retrieve(ground.stores.collection, [point_id(optimization)], with_vectors=True)
    ground.stores.qdrant.delete(ground.stores.collection, [point.id])
    again = models.PointStruct(id=point.id, vector=point.vector, payload=point.payload)
    try:
        yield optimization, f"point of {optimization} in Qdrant"
    finally:
        ground.stores.qdrant.upsert(ground.stores.collection, [again])


@planted("redis", "presence")
def presence_of_an_unknown_agent(ground: Ground) -> Iterator[Named]:
    with ground.presence("agent_gone"):
        yield "agent_gone", "registered agent agent_gone"


@planted("redis", "presence")
def presence_of_an_agent_that_left_long_ago(ground: Ground) -> Iterator[Named]:
    texts = dict.fromkeys(("agent_type", "pool", "version", "hostname", "base_url", "secret_hash"), "left")
    left = {"id": "agent_left", "capabilities": "[]", "deregistered_at": "2026-01-01T00:00:00Z"}
    with ground.row("agents", "id", **left, **texts), ground.presence("agent_left"):
        yield "agent_left", "registered agent agent_left"


@planted("postgresql", "events")
def event_of_an_unknown_optimization(ground: Ground) -> Iterator[Named]:
    event = {"id": "evt_odd", "customer_id": ground.customer.id, "seq": 2**40, "optimization_id": "opt_gone"}
    with ground.row("events", "id", **event, event_type="step_started", source="orchestrator", payload="{}"):
        yield "evt_odd", "optimization opt_gone"


@planted("postgresql", "similar_outcomes")
def recommendation_after_an_unknown_outcome(ground: Ground) -> Iterator[Named]:
    recommendation = ground.of_customer("id", "recommendations")
    ((draft,),) = ground.stores.sql("SELECT draft FROM recommendations WHERE id = %s", recommendation)
    changed = json.dumps(draft | {"similar_outcomes": ["opt_gone"]})
    with ground.changed("recommendations", recommendation, draft=changed):
        yield recommendation, "outcome of opt_gone"


@planted("postgresql", "optimizations")
def optimization_that_nothing_carries_out(ground: Ground) -> Iterator[Named]:
    optimization = ground.of_customer("id", "optimizations")
    with ground.changed("optimizations", optimization, status="running"):
        yield optimization, f"workflow of {optimization} under way"


@planted("postgresql", "optimizations")
def optimization_that_nothing_undoes(ground: Ground) -> Iterator[Named]:
    optimization = ground.of_customer("id", "optimizations")
    with ground.changed("optimizations", optimization, rollback_reason="asked for"):
        yield optimization, f"workflow of {optimization} under way"


@planted("postgresql", "analyses")
def analysis_that_nothing_carries_out(ground: Ground) -> Iterator[Named]:
    analysis = ground.of_customer("id", "analyses")
    with ground.changed("analyses", analysis, status="started", created_at="2026-01-01T00:00:00Z"):
        yield analysis, f"workflow of {analysis} under way"


def _workflow(ground: Ground, workflow_id: str) -> AbstractContextManager[None]:
    columns = {"workflow_uuid": workflow_id, "status": "SUCCESS", "created_at": 0, "updated_at": 0, "priority": 0}
    return ground.row("dbos.workflow_status", "workflow_uuid", **columns)


@planted("postgresql", "workflows")
def workflow_of_an_unknown_analysis(ground: Ground) -> Iterator[Named]:
    with _workflow(ground, "anal_gone"):
        yield "anal_gone", "row anal_gone"


@planted("postgresql", "workflows")
def workflow_of_an_unknown_optimization(ground: Ground) -> Iterator[Named]:
    with _workflow(ground, "opt_gone:rollback"):
        yield "opt_gone:rollback", "row opt_gone"


@planted("postgresql", "workflow_records")
def step_of_an_unknown_workflow(ground: Ground) -> Iterator[Named]:
    columns = {"workflow_uuid": "anal_gone", "function_id": 1, "function_name": "draft", "output": "null"}
    with ground.row("dbos.operation_outputs", "workflow_uuid", **columns, retention_timestamp=0):
        yield "anal_gone", "workflow anal_gone"


@planted("postgresql", "commands")
def order_that_nobody_waits_for(ground: Ground) -> Iterator[Named]:
    optimization = ground.of_customer("id", "optimizations")
    command = {"id": "cmd_odd", "customer_id": ground.customer.id, "idempotency_key": f"{optimization}:late:cmd_odd"}
    # As delivered to the runtime that is connected, and not due again: it must not answer.
    delivered = {"delivered_to": ground.of_customer("id", "runtimes"), "delivered_at": "2199-01-01T00:00:00Z"}
    with ground.row("commands", "id", **command, **delivered, kind="discover", payload="{}", status="pending"):
        yield "cmd_odd", f"optimization {optimization} under way"


@planted("postgresql", "replicas")
def replica_on_an_unknown_instance(ground: Ground) -> Iterator[Named]:
    # With another customer, whom no runtime reports of: this one's deployments are described anew every few seconds.
    other = {"id": "cust_other", "company_name": "x", "plan": "pro", "preferences": "{}"}
    account = {"id": "acct_other", "customer_id": "cust_other", "provider": "aws", "region": "us-east-1"}
    (cloud,) = ground.customer.seeded.clouds
    replicas = [{"replica_id": "rep_1", "instance_id": "i-gone", "state": "ready"}]
    described = json.dumps({"provider": "aws", "region": "us-east-1", "replicas": replicas})
    deployment = {"id": "dep_other", "customer_id": "cust_other", "name": "x", "described": described}
    with (
        ground.row("customers", "id", **other),
        ground.row("cloud_accounts", "id", **account, role_arn=cloud.role_arn, status="discovered"),
        ground.row("deployments", "id", **deployment, seen_at="2026-01-01T00:00:00Z"),
    ):
        yield "dep_other/rep_1", "instance i-gone"


@planted("postgresql", "running_instances")
def running_instance_that_its_cloud_does_not_know(ground: Ground) -> Iterator[Named]:
    account = ground.of_customer("id", "cloud_accounts")
    columns = {"customer_id": ground.customer.id, "instance_id": "i-gone", "cloud_account_id": account}
    kind = {"provider": "aws", "region": "us-east-1", "instance_type": "g5.xlarge", "lifecycle": "spot"}
    with ground.row("instances", "instance_id", **columns, **kind, state="running", monthly_cost=0.0, seen_at="now"):
        yield "i-gone", f"instance i-gone of account {account}"


@planted("cloud", "step_instances")
def instance_of_an_unknown_optimization(ground: Ground) -> Iterator[Named]:
    with ground.instance("opt_gone:targets") as instance_id:
        yield instance_id, "optimization opt_gone"


@planted("cloud", "step_instances")
def instance_that_going_back_forgot(ground: Ground) -> Iterator[Named]:
    # A second recommendation like the first, carried out and rolled back; what was restored for it stays.
    recommendation = ground.of_customer("recommendation_id", "optimizations")
    names = ("analysis_id", "deployment_id", "agent_type", "status", "expires_at")
    (values,) = ground.stores.sql(f"SELECT {', '.join(names)} FROM recommendations WHERE id = %s", recommendation)  # noqa: S608
    second = dict(zip(names, values, strict=True)) | {"id": "rec_undone", "customer_id": ground.customer.id}
    undone = {"id": "opt_undone", "customer_id": ground.customer.id, "recommendation_id": "rec_undone"}
    with (
        ground.row("recommendations", "id", **second, draft='{"similar_outcomes": []}', validations="[]"),
        ground.row("optimizations", "id", **undone, type="spot_migration", status="rolled_back", trace_id="0"),
        ground.instance("opt_undone:restored"),
        ground.instance("opt_undone:targets") as forgotten,
    ):
        yield forgotten, "optimization opt_undone, which is rolled_back"
