"""The orchestrator's application: connections, workflows, routes."""

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer
from fastapi import FastAPI
from starlette.requests import HTTPConnection

from optiinfra.clouds.price_book import PriceBook
from optiinfra.kit.app import Check, create_app
from optiinfra.kit.auth import Principal, bearer
from optiinfra.kit.bulkhead import BulkheadMiddleware
from optiinfra.kit.http import client
from optiinfra.kit.retries import retry_until_deadline
from optiinfra.orchestrator import errors, idempotency
from optiinfra.orchestrator.accounts import endpoints as accounts
from optiinfra.orchestrator.accounts import service as account_service
from optiinfra.orchestrator.agents import endpoints as agents
from optiinfra.orchestrator.agents import service as agent_registry
from optiinfra.orchestrator.analyses import endpoints as analyses
from optiinfra.orchestrator.analyses.workflow import AnalysisWorkflow
from optiinfra.orchestrator.audit import endpoints as audit
from optiinfra.orchestrator.audit.middleware import AuditMiddleware
from optiinfra.orchestrator.consistency import endpoints as consistency
from optiinfra.orchestrator.credentials import agent_tokens, api_keys
from optiinfra.orchestrator.credentials import endpoints as credentials
from optiinfra.orchestrator.customers import endpoints as customers
from optiinfra.orchestrator.events import endpoints as events
from optiinfra.orchestrator.inventory import endpoints as inventory
from optiinfra.orchestrator.limits import service as limits
from optiinfra.orchestrator.optimizations import endpoints as optimizations
from optiinfra.orchestrator.optimizations.executor import StepExecutor
from optiinfra.orchestrator.optimizations.types import TYPES
from optiinfra.orchestrator.optimizations.workflow import OptimizationWorkflow
from optiinfra.orchestrator.platform import Platform, of_connection
from optiinfra.orchestrator.recommendations import endpoints as recommendations
from optiinfra.orchestrator.recovery import recover_periodically
from optiinfra.orchestrator.runtimes import endpoints as runtimes
from optiinfra.orchestrator.settings import Settings
from optiinfra.orchestrator.telemetry import endpoints as telemetry
from optiinfra.orchestrator.users import endpoints as users
from optiinfra.stores import redis
from optiinfra.stores.audit_heads import AuditHeads
from optiinfra.stores.clickhouse import Telemetry
from optiinfra.stores.postgres.database import CONNECT_ARGUMENTS, Database
from optiinfra.stores.qdrant import OutcomeMemory
from optiinfra.stores.rate_limits import Lockouts, RateLimits

_CONCEPTS = (
    accounts,
    customers,
    credentials,
    users,
    inventory,
    telemetry,
    runtimes,
    agents,
    analyses,
    recommendations,
    optimizations,
    events,
    consistency,
    audit,
)


def create(settings: Settings) -> FastAPI:
    """The orchestrator's application."""
    checks: dict[str, Check] = {}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _connected(settings, checks) as platform:
            app.state.platform = platform
            app.state.optimizations = OptimizationWorkflow(platform, StepExecutor(platform, TYPES))
            app.state.analyses = AnalysisWorkflow(platform, app.state.optimizations)
            # Not in a thread: recovered workflows must run on the event loop that the clients belong to.
            DBOS.launch()
            recovery = asyncio.create_task(recover_periodically(platform, app.state.analyses, app.state.optimizations))
            try:
                yield
            finally:
                recovery.cancel()
                await asyncio.gather(recovery, return_exceptions=True)
                DBOS.destroy()

    DBOS(config=_dbos_config(settings))
    public = frozenset((*accounts.PUBLIC, *users.PUBLIC, *runtimes.PUBLIC))
    long_calls = (*runtimes.LONG_CALLS, *consistency.LONG_CALLS, *customers.LONG_CALLS, *audit.LONG_CALLS)
    app = create_app(
        "orchestrator",
        settings.version,
        lifespan=lifespan,
        authenticate=_authenticate,
        public=public,
        checks=checks,
        long_calls=long_calls,
        large_bodies=runtimes.LARGE_BODIES,
        seconds_to_wait=limits.seconds_to_wait,
        admit=limits.place_of_customer,
        middleware=[
            AuditMiddleware,
            partial(BulkheadMiddleware, admit=partial(limits.place_of_caller, public=public), long_calls=long_calls),
        ],
    )
    # Not include_router: it would match each path twice, router by router.
    app.router.routes.extend(route for concept in _CONCEPTS for route in concept.router.routes)

    errors.install(app)
    idempotency.install(app)
    return app


@asynccontextmanager
async def _connected(settings: Settings, checks: dict[str, Check]) -> AsyncIterator[Platform]:
    """Connect to all stores, waiting for them up to the start deadline, and bring their schemas up to date."""
    # Several clients, so that many waiting readers delay neither agents' heartbeats nor requests.
    wake_client, presence_client, limits_client = clients = [redis.connect(settings.redis_url) for _ in range(3)]
    wake = redis.WakeUp(wake_client, settings.redis_prefix)
    database = Database(settings.postgresql_url, wake.notify)
    memory = OutcomeMemory(settings.qdrant_url, settings.qdrant_api_key, settings.qdrant_collection)
    deadline = settings.start_deadline_seconds

    async def connect_telemetry() -> Telemetry:
        return await asyncio.to_thread(
            Telemetry.connect,
            settings.clickhouse_url,
            settings.clickhouse_user,
            settings.clickhouse_password,
            settings.clickhouse_database,
        )

    async def prepare_telemetry() -> Telemetry:
        telemetry = await retry_until_deadline(connect_telemetry, "ClickHouse", deadline)
        await telemetry.create_schema()
        return telemetry

    telemetry, *_ = await asyncio.gather(
        prepare_telemetry(),
        retry_until_deadline(database.migrate, "PostgreSQL", deadline),
        retry_until_deadline(memory.create_schema, "Qdrant", deadline),
        retry_until_deadline(wake_client.ping, "Redis", deadline),
    )
    checks |= {
        "postgresql": database.ping,
        "clickhouse": telemetry.ping,
        "qdrant": memory.ping,
        "redis": wake.ping,
    }
    async with client(timeout=settings.agent_task_seconds) as agents_http:
        yield Platform(
            settings=settings,
            database=database,
            telemetry=telemetry,
            memory=memory,
            wake=wake,
            presence=redis.Presence(
                presence_client, settings.redis_prefix, agent_registry.presence_seconds(settings.heartbeat_seconds)
            ),
            rate_limits=RateLimits(limits_client, settings.redis_prefix),
            lockouts=Lockouts(
                limits_client,
                settings.redis_prefix,
                settings.rate_limit_lockout_failures,
                settings.rate_limit_lockout_seconds,
                settings.rate_limit_longest_lockout_seconds,
            ),
            audit_heads=AuditHeads(limits_client, settings.redis_prefix),
            agents_http=agents_http,
            prices=PriceBook.load(),
        )
    await asyncio.gather(telemetry.close(), memory.close(), database.close(), *(redis.close(each) for each in clients))


async def _authenticate(connection: HTTPConnection) -> Principal | None:
    token = bearer(connection)
    if token is None:
        return None
    platform = of_connection(connection)
    if hmac.compare_digest(token, platform.settings.admin_token):
        return Principal("admin", "admin")
    if hmac.compare_digest(token, platform.settings.enrolment_secret):
        return Principal("enrolment", "enrolment")
    if token.startswith("agsec_"):
        return await agent_registry.authenticate(platform, token)
    if token.startswith("agtok_"):
        return await agent_tokens.authenticate(platform, token)
    if token.startswith(f"{api_keys.PREFIX}_"):
        return await api_keys.authenticate(platform, token)
    return await account_service.authenticate(platform, token)


def _dbos_config(settings: Settings) -> DBOSConfig:
    return {
        "name": "optiinfra",
        "system_database_url": settings.postgresql_url,
        "db_engine_kwargs": {"connect_args": CONNECT_ARGUMENTS},
        "executor_id": settings.executor_id,
        # Constant: DBOS resumes only workflows of its own version, and one computed from the source would leave
        # pending workflows behind with every release.
        "application_version": "1",
        "serializer": DBOSPortableJSONSerializer(),
        "console_log_level": "WARNING",
    }
