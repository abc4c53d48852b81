"""Two customers that must not see each other: one with something of everything, and the other's credentials."""

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from fixtures import aws
from fixtures.provision import create_roles
from optiinfra.api import calls
from testbed.waiting import wait_until
from tests.helpers import cloud_state
from tests.helpers.accounts import add_user
from tests.helpers.customer import Customer
from tests.helpers.database import connect, execute
from tests.helpers.runtime import connected_runtime, customer_without_fleet, deployment
from tests.helpers.seeds import seeded

DISCOVERY_SECONDS = 30.0
TYPE = "g5.xlarge"


@dataclass(frozen=True)
class Tenant:
    """A customer, the ids of what it has by the names of path parameters, and its running instances."""

    customer: Customer
    ids: dict[str, str]
    instance_ids: list[str]

    def rows(self) -> dict[str, list[str]]:
        """Everything that PostgreSQL holds of the customer, by table; tables without are left out."""
        with connect(self.customer.environment) as connection:
            tables = connection.execute(
                "SELECT table_name FROM information_schema.columns"
                " WHERE table_schema = 'public' AND column_name = 'customer_id' ORDER BY table_name"
            ).fetchall()
            found = {
                table: sorted(
                    json.dumps(row, default=str)
                    for (row,) in connection.execute(
                        f"SELECT to_jsonb(t) FROM {table} AS t WHERE customer_id = %s".encode(),  # noqa: S608
                        (self.customer.id,),
                    )
                )
                for (table,) in tables
            }
        return {table: rows for table, rows in found.items() if rows}

    def running(self) -> list[str]:
        """Ids of the instances that run in the account, read from the cloud itself."""
        return sorted(cloud_state.running_in(self.customer.seeded.clouds[0]))


def external_id_of(customer: Customer) -> str:
    """What the platform issued to the customer."""
    return customer.send(calls.cloud_trust(customer.id)).external_id


def onboard_body(customer: Customer) -> dict[str, str]:
    """The body that connects the customer's account."""
    (cloud,) = customer.seeded.clouds
    return {"cloud_provider": "aws", "region": cloud.region, "iam_role_arn": cloud.role_arn}


def discovered(customer: Customer) -> tuple[str, str | None, list[str]]:
    """Status, error and instances of the customer's estate, once its accounts are listed."""
    found = wait_until(
        customer.infrastructure,
        f"the accounts of {customer.id} to be listed",
        DISCOVERY_SECONDS,
        accept=lambda shown: shown.status not in ("pending", "discovering"),
    )
    return found.status, found.error, sorted(one.instance_id for one in found.instances)


@contextmanager
def account_with_role(environment: dict[str, Any], count: int = 2) -> Iterator[tuple[Customer, list[str]]]:
    """A customer whose role requires the external id that it was issued; its account is not connected yet."""
    with customer_without_fleet(environment) as customer:
        create_roles(environment, customer.seeded, external_id_of(customer))
        client = cloud_state.ec2(customer.seeded.clouds[0])
        tags = {"Name": "of the customer"}
        yield customer, sorted(aws.start_instances(client, TYPE, count, "on-demand", tags))


@contextmanager
def tenant(environment: dict[str, Any]) -> Iterator[Tenant]:
    """A customer with an account, a runtime, a deployment, and a row of everything that has an id."""
    with ExitStack() as stack:
        customer, instance_ids = stack.enter_context(account_with_role(environment))
        customer.post(f"/customers/{customer.id}/onboard", onboard_body(customer))
        assert discovered(customer) == ("discovered", None, instance_ids)
        runtime = stack.enter_context(connected_runtime(customer))
        deployment_ids = runtime.report(deployment("chat", instance_ids, TYPE))
        seeds = stack.enter_context(seeded(environment, customer.id))
        decided = seeds.recommendation(*instance_ids, status="completed")
        command_id = f"cmd_{uuid.uuid4().hex[:24]}"
        execute(
            environment,
            "INSERT INTO commands (id, customer_id, idempotency_key, kind, payload, status)"
            " VALUES (%s, %s, 'tenant', 'discover', '{}', 'pending')",
            command_id,
            customer.id,
        )
        ((analysis_id,),) = execute(environment, "SELECT id FROM analyses WHERE customer_id = %s", customer.id)
        ((token_id,),) = execute(environment, "SELECT id FROM agent_tokens WHERE customer_id = %s", customer.id)
        key = customer.post(f"/customers/{customer.id}/api-keys", {"name": "own", "scope": "read"})
        ((user_id,),) = execute(environment, "SELECT id FROM users WHERE customer_id = %s", customer.id)
        ((session_id,),) = execute(environment, "SELECT id FROM sessions WHERE user_id = %s", user_id)
        ids = {
            "customer_id": customer.id,
            "user_id": user_id,
            "session_id": session_id,
            "token_id": token_id,
            "key_id": key["key_id"],
            "runtime_id": runtime.runtime_id,
            "command_id": command_id,
            "analysis_id": analysis_id,
            "recommendation_id": seeds.recommendation(*instance_ids),
            "optimization_id": seeds.optimization(decided, "completed", success=True, savings=100.0),
            "deployment_id": deployment_ids["chat"],
        }
        yield Tenant(customer, ids, instance_ids)


def credentials_of(customer: Customer) -> dict[str, str]:
    """A token of every kind that a customer can have, by kind."""
    path = f"/customers/{customer.id}"
    tokens = {"owner": customer.http.headers["Authorization"].removeprefix("Bearer ")}
    for role in ("approver", "viewer"):
        tokens[role] = add_user(customer.environment, customer.id, role).sign_in(customer.http)["access_token"]
    for scope in ("approve", "read"):
        tokens[f"{scope} key"] = customer.post(f"{path}/api-keys", {"name": scope, "scope": scope})["api_key"]
    tokens["runtime"] = customer.post(f"{path}/agent-install-command")["agent_token"]
    return tokens
