"""Sign-up and sessions against PostgreSQL's own constraints and locks."""

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import cast

import pytest
from sqlalchemy import delete, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.accounts import Signup, Tokens
from optiinfra.api.common import now
from optiinfra.kit.auth import Principal
from optiinfra.kit.retries import retry_until_deadline
from optiinfra.orchestrator.accounts import repository, service, sessions, tokens
from optiinfra.orchestrator.errors import Conflict
from optiinfra.orchestrator.platform import Platform
from optiinfra.orchestrator.settings import Settings
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database
from tests.contract.conftest import CUSTOMER

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("customer")]

SETTINGS = Settings.model_construct(token_signing_key="a signing key that is long enough" * 2)


def user(user_id: str, email: str) -> models.User:
    return models.User(id=user_id, customer_id=CUSTOMER, email=email, password_hash="x", role="owner")


def company(customer_id: str) -> models.Customer:
    return models.Customer(id=customer_id, company_name="x", plan="pro", preferences={})


async def test_sign_up_with_a_taken_address_is_a_conflict_and_adds_nothing(database: Database) -> None:
    platform = cast("Platform", SimpleNamespace(database=database))
    body = Signup(email="ops@acme.example", company_name="Acme", password="correct horse battery")
    customer_id = (await service.sign_up(platform, body)).customer_id
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


async def signed_in(database: Database) -> tuple[str, Tokens]:
    """A user with a new session: its id and its tokens."""
    async with database.transaction() as session:
        session.add(user("user_1", "one@acme.example"))
        await session.flush()
        begun = await sessions.begin(session, SETTINGS, "user_1")
        issued = await tokens.issue(session, SETTINGS, await session.get_one(models.User, "user_1"), begun)
    principal = tokens.read_access_token(SETTINGS, issued.access_token)
    assert principal is not None
    assert principal.session_id == begun.id
    return begun.id, issued


async def rotated(database: Database, refresh_token: str) -> Tokens | None:
    async with database.transaction() as session:
        return await tokens.rotate(session, SETTINGS, refresh_token)


async def until_one_waits_for_a_lock(session: AsyncSession) -> None:
    """Wait until another transaction on this server waits for a lock."""

    async def one_waits() -> None:
        waiting = await session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        assert waiting, "no transaction waits for a lock"

    await retry_until_deadline(one_waits, "a transaction to wait for a lock", 10.0, interval=0.01)


async def test_session_ends_when_a_refresh_token_is_used_again(database: Database) -> None:
    session_id, first = await signed_in(database)
    second = await rotated(database, first.refresh_token)
    assert second is not None
    assert await sessions.is_active(database, session_id)
    assert await rotated(database, first.refresh_token) is None
    assert not await sessions.is_active(database, session_id)
    assert await rotated(database, second.refresh_token) is None


async def test_owner_of_a_refresh_token_is_known_also_when_it_has_been_used(database: Database) -> None:
    session_id, first = await signed_in(database)
    second = await rotated(database, first.refresh_token)
    assert second is not None
    async with database.transaction() as session:
        for token in (first.refresh_token, second.refresh_token):
            owner = await tokens.owner_of(session, token)
            assert owner == Principal("user", "user_1", CUSTOMER, "owner", session_id)
        assert await tokens.owner_of(session, "refresh_unknown") is None


async def test_refresh_token_used_twice_at_once_is_rotated_once(database: Database) -> None:
    session_id, first = await signed_in(database)
    async with database.transaction() as session:
        second = await tokens.rotate(session, SETTINGS, first.refresh_token)
        await session.flush()
        reuse = asyncio.create_task(rotated(database, first.refresh_token))
        await until_one_waits_for_a_lock(session)
    assert second is not None
    assert await reuse is None
    assert not await sessions.is_active(database, session_id)


async def test_session_that_ends_while_a_token_is_rotated_leaves_no_valid_token(database: Database) -> None:
    session_id, first = await signed_in(database)
    async with database.transaction() as session:
        await sessions.end(session, models.UserSession.id == session_id)
        rotation = asyncio.create_task(rotated(database, first.refresh_token))
        await until_one_waits_for_a_lock(session)
    assert await rotation is None
    assert not await sessions.is_active(database, session_id)


async def test_session_whose_used_token_is_used_again_while_its_successor_rotates_leaves_no_valid_token(
    database: Database,
) -> None:
    session_id, first = await signed_in(database)
    second = await rotated(database, first.refresh_token)
    assert second is not None
    async with database.transaction() as session:
        third = await tokens.rotate(session, SETTINGS, second.refresh_token)
        reuse = asyncio.create_task(rotated(database, first.refresh_token))
        await until_one_waits_for_a_lock(session)
    assert third is not None
    assert await reuse is None
    assert not await sessions.is_active(database, session_id)
    assert await rotated(database, third.refresh_token) is None


async def test_tokens_do_not_outlive_their_session(database: Database) -> None:
    session_id, first = await signed_in(database)
    ends = now() + timedelta(seconds=60)
    async with database.transaction() as session:
        (await session.get_one(models.UserSession, session_id)).expires_at = ends
    second = await rotated(database, first.refresh_token)
    assert second is not None
    assert 58 <= second.expires_in <= 60
    principal = tokens.read_access_token(SETTINGS, second.access_token)
    assert principal is not None
    assert principal.expires_at == int(ends.timestamp())
    async with database.transaction() as session:
        (await session.get_one(models.UserSession, session_id)).expires_at = now()
    assert not await sessions.is_active(database, session_id)
    assert await rotated(database, second.refresh_token) is None
