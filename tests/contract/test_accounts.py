"""Sign-up against PostgreSQL's own unique constraint."""

from types import SimpleNamespace
from typing import cast

import pytest
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from optiinfra.api.accounts import Signup
from optiinfra.orchestrator.accounts import repository, service
from optiinfra.orchestrator.errors import Conflict
from optiinfra.orchestrator.platform import Platform
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database
from tests.contract.conftest import CUSTOMER

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("customer")]


def user(user_id: str, email: str) -> models.User:
    return models.User(id=user_id, customer_id=CUSTOMER, email=email, password_hash="x", role="owner")


def company(customer_id: str) -> models.Customer:
    return models.Customer(id=customer_id, company_name="x", plan="pro", preferences={})


async def test_sign_up_with_a_taken_address_is_a_conflict_and_adds_nothing(database: Database) -> None:
    platform = cast("Platform", SimpleNamespace(database=database))
    body = Signup(email="ops@acme.example", company_name="Acme", password="correct horse battery")
    customer_id = await service.sign_up(platform, body)
    with pytest.raises(Conflict, match="has an account already") as refused:
        await service.sign_up(platform, body.model_copy(update={"email": "OPS@acme.example"}))
    assert refused.value.code == "email_taken"
    async with database.transaction() as session:
        assert set(await session.scalars(select(models.Customer.id))) == {CUSTOMER, customer_id}


async def test_another_unique_violation_is_raised_as_it_is(database: Database) -> None:
    async with database.transaction() as session:
        session.add(user("user_1", "one@acme.example"))
    with pytest.raises(IntegrityError, match="pk_users"):
        async with database.transaction() as session:
            await repository.add_customer(session, company("cust_2"), user("user_1", "two@acme.example"))
    async with database.transaction() as session:
        await session.execute(delete(models.User))
