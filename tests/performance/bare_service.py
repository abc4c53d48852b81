"""A service that does nothing but authenticate and answer from PostgreSQL: what FastAPI and psycopg can do here.

It verifies the same tokens as the platform, looks up their session as the platform does, and returns as many rows.
`python -m tests.performance.bare_service` with POSTGRESQL_URL, TOKEN_SIGNING_KEY and PORT in its environment.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import jwt
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

Claims = dict[str, Any]
Row = dict[str, Any]

_KEY = os.environ["TOKEN_SIGNING_KEY"]
_POOL = AsyncConnectionPool(
    os.environ["POSTGRESQL_URL"], min_size=16, max_size=16, open=False, kwargs={"autocommit": True}
)


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    async with _POOL:
        yield


app = FastAPI(lifespan=_lifespan)


async def _rows(query: str, *parameters: object) -> list[Row]:
    async with _POOL.connection() as connection:
        cursor = await connection.cursor(row_factory=dict_row).execute(query, parameters)
        return await cursor.fetchall()


async def _row(query: str, *parameters: object) -> Row:
    found = await _rows(query, *parameters)
    if not found:
        raise HTTPException(404)
    return found[0]


async def _authenticate(request: Request) -> Claims:
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    try:
        claims: Claims = jwt.decode(
            token,
            _KEY,
            algorithms=["HS256"],
            audience="optiinfra",
            options={"require": ["exp", "sub", "aud", "sid"]},
        )
    except jwt.InvalidTokenError as error:
        raise HTTPException(401) from error
    session = "SELECT 1 FROM sessions WHERE id = %s AND ended_at IS NULL AND expires_at > clock_timestamp()"
    if not await _rows(session, claims["sid"]):
        raise HTTPException(401)
    return claims


Caller = Annotated[Claims, Depends(_authenticate)]


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "healthy"}


@app.get("/customers/{customer_id}")
async def customer(caller: Caller) -> Row:
    return await _row(
        "SELECT id, company_name, plan, preferences, created_at FROM customers WHERE id = %s", caller["customer_id"]
    )


@app.get("/analyses/{analysis_id}")
async def analysis(analysis_id: str, caller: Caller) -> Row:
    return await _row(
        "SELECT id, agent_type, status, summary, error FROM analyses WHERE id = %s AND customer_id = %s",
        analysis_id,
        caller["customer_id"],
    )


@app.get("/optimizations/{optimization_id}")
async def optimization(optimization_id: str, caller: Caller) -> Row:
    return await _row(
        """SELECT id, recommendation_id, type, status, started_at, completed_at, result
            FROM optimizations WHERE id = %s AND customer_id = %s""",
        optimization_id,
        caller["customer_id"],
    )


@app.get("/customers/{customer_id}/recommendations")
async def recommendations(caller: Caller, limit: int = 100) -> list[Row]:
    return await _rows(
        """SELECT id, agent_type, status, draft, validations, created_at, expires_at
            FROM recommendations WHERE customer_id = %s ORDER BY created_at DESC, id LIMIT %s""",
        caller["customer_id"],
        limit,
    )


@app.get("/customers/{customer_id}/infrastructure")
async def infrastructure(caller: Caller) -> list[Row]:
    return await _rows("SELECT * FROM instances WHERE customer_id = %s ORDER BY instance_id", caller["customer_id"])


@app.get("/customers/{customer_id}/events")
async def events(caller: Caller, limit: int = 100) -> list[Row]:
    return await _rows(
        "SELECT * FROM events WHERE customer_id = %s ORDER BY seq LIMIT %s", caller["customer_id"], limit
    )


@app.get("/customers/{customer_id}/metrics")
async def metrics(customer_id: str, caller: Caller, limit: int) -> list[Row]:
    """As many points as the platform returns. They are made up: PostgreSQL holds no telemetry."""
    assert customer_id == caller["customer_id"]
    return await _rows(
        """SELECT now() - number * interval '1 minute' AS timestamp, number::float8 AS value, NULL AS score,
            %s AS resource_id FROM generate_series(1, %s) AS number""",
        customer_id,
        limit,
    )


if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=int(os.environ["PORT"]), log_config=None, access_log=False, timeout_keep_alive=30
    )
