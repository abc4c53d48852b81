"""Customers without an estate, and their users, who sign in at the API or in the portal."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from argon2 import PasswordHasher

from fixtures.provision import SeededCloud, SeededEstate
from tests.helpers.callers import bearer, call
from tests.helpers.customer import Customer
from tests.helpers.database import execute

PASSWORD = "four words and a number 7"


@dataclass(frozen=True)
class Account:
    """A user, and how to sign in as that user."""

    customer_id: str
    user_id: str
    email: str
    password: str = PASSWORD

    def sign_in(self, http: httpx.Client) -> dict[str, Any]:
        """The tokens of a new session."""
        tokens: dict[str, Any] = call(
            http, "POST", "/auth/login", body={"username": self.email, "password": self.password}
        )
        return tokens


@contextmanager
def signed_up(
    environment: dict[str, Any], *, email: str | None = None, company_name: str = "Accounts"
) -> Iterator[Account]:
    """The owner of a new customer, who is deleted afterwards."""
    admin = bearer(environment["credentials"]["admin_token"])
    email = email or f"owner-{uuid.uuid4().hex}@example.com"
    body = {"email": email, "company_name": company_name, "password": PASSWORD}
    with httpx.Client(base_url=environment["urls"]["orchestrator"], timeout=30) as http:
        customer_id = call(http, "POST", "/auth/signup", body=body)["customer_id"]
        try:
            ((user_id,),) = execute(environment, "SELECT id FROM users WHERE customer_id = %s", customer_id)
            yield Account(customer_id, user_id, email)
        finally:
            gone = http.delete(f"/customers/{customer_id}", headers=admin)
            assert gone.status_code in (204, 404), gone.text


def estate_of(environment: dict[str, Any], owner: Account, clouds: Sequence[SeededCloud] = ()) -> SeededEstate:
    """The description of a signed-up customer's estate: cloud accounts, no deployments."""
    urls = environment["urls"]
    return SeededEstate(
        customer_id=owner.customer_id,
        email=owner.email,
        password=owner.password,
        orchestrator_url=urls["orchestrator"],
        portal_url=urls["portal"],
        fleet_url=urls["inference-fleet"],
        clouds=list(clouds),
        deployments=[],
    )


def owner_of(environment: dict[str, Any], customer: Customer) -> Account:
    """The owner of a provisioned customer."""
    query = "SELECT id FROM users WHERE customer_id = %s AND email = %s"
    ((user_id,),) = execute(environment, query, customer.id, customer.seeded.email)
    return Account(customer.id, user_id, customer.seeded.email, customer.seeded.password)


def add_user(environment: dict[str, Any], customer_id: str, role: str) -> Account:
    """A further user of a customer, written to PostgreSQL: no route adds users yet."""
    unique = uuid.uuid4().hex
    user = Account(customer_id, f"user_{unique[:24]}", f"{role}-{unique}@example.com")
    execute(
        environment,
        "INSERT INTO users (id, customer_id, email, password_hash, role) VALUES (%s, %s, %s, %s, %s)",
        user.user_id,
        customer_id,
        user.email,
        PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1).hash(user.password),
        role,
    )
    return user
