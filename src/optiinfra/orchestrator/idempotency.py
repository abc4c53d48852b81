"""Idempotency keys: a POST that is sent again under its key changes nothing, and is answered as the first time.

The answer is stored in the transaction of the change, so that neither is there without the other. Services call
`replay` before the change and `remember` after it.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, FastAPI, Header, Request, Response
from pydantic import BaseModel
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from optiinfra.api.common import now
from optiinfra.kit.auth import Principal
from optiinfra.kit.problems import problem_response
from optiinfra.orchestrator.errors import Invalid
from optiinfra.stores.postgres import models
from optiinfra.stores.postgres.database import Database

KEYS_KEPT = timedelta(days=1)
"""How long a request can be sent again under its key."""
REPLAYED = {"Idempotency-Replayed": "true"}
"""Header of an answer to a request that had been carried out before."""

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Chosen by the caller, anew for each change. The same request under the same key changes nothing"
        " and is answered as the first time, for a day; another one is refused.",
    ),
]


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request with an idempotency key.

    The key is the caller's (`caller`: a customer, or an agent or administrator) for this method and path (`request`).
    `digest` recognizes the body; `status` is that of the route's answer.
    """

    key: str
    caller: str
    customer_id: str | None
    request: str
    digest: str
    status: int

    def sent_by(self, principal: Principal) -> "KeyedRequest":
        """The same request of a caller whose credential is in the body."""
        return replace(self, caller=_name_of(principal), customer_id=principal.customer_id)


class Replayed(Exception):  # noqa: N818  no error
    """The request had been carried out.

    `answer` is the JSON of its answer; None if that held a secret, and `issued` the ids of what the secret belongs to.
    """

    def __init__(self, status: int, answer: str | None, issued: dict[str, str] | None) -> None:
        super().__init__("carried out before")
        self.status, self.answer, self.issued = status, answer, issued


def digest_of(body: bytes) -> str:
    """The digest by which a body is recognized."""
    return hashlib.sha256(body).hexdigest()


async def _keyed(request: Request, idempotency_key: IdempotencyKey = None) -> KeyedRequest | None:
    if idempotency_key is None:
        return None
    principal: Principal | None = request.scope.get("state", {}).get("principal")
    return KeyedRequest(
        key=idempotency_key,
        caller=_name_of(principal) if principal else "",
        customer_id=principal.customer_id if principal else None,
        request=f"{request.method} {request.url.path}",
        digest=digest_of(await request.body()),
        status=request.scope["route"].status_code or 200,
    )


Keyed = Annotated[KeyedRequest | None, Depends(_keyed)]
"""The request if it has an idempotency key. Every changing route has this parameter."""


async def replay(session: AsyncSession, keyed: KeyedRequest | None) -> None:
    """Raise Replayed if the request has been carried out, Invalid if its key was used with another body.

    Of simultaneous requests with one key, the others wait here until the first one's transaction ends.
    """
    if keyed is None:
        return
    table = models.IdempotencyKey
    names = keyed.caller, keyed.request, keyed.key
    await session.execute(select(func.pg_advisory_xact_lock(_lock_of(*names))))
    earlier = await session.get(table, names)
    if earlier is None:
        return
    if earlier.digest != keyed.digest:
        raise Invalid(
            "header.Idempotency-Key: it was used with another body: send each change under a key of its own",
            "idempotency_key_reused",
        )
    raise Replayed(earlier.status, earlier.answer, earlier.issued)


async def remember(session: AsyncSession, keyed: KeyedRequest | None, answer: BaseModel) -> None:
    """Store the answer to a request that is carried out in this transaction."""
    if keyed is not None:
        await _store(session, keyed, answer=answer.model_dump_json())


async def remember_issued(session: AsyncSession, keyed: KeyedRequest | None, **ids: str) -> None:
    """Store instead of an answer that holds a secret the ids, by name, of what the secret belongs to."""
    if keyed is not None:
        await _store(session, keyed, issued=ids)


async def forget_old_keys(database: Database) -> None:
    """Delete keys that are too old to be sent again."""
    table = models.IdempotencyKey
    async with database.transaction() as session:
        await session.execute(delete(table).where(table.created_at < now() - KEYS_KEPT))


def install(app: FastAPI) -> None:
    """Answer requests that had been carried out before."""

    @app.exception_handler(Replayed)
    async def _replayed(_request: Request, earlier: Replayed) -> Response:
        if earlier.issued is None:
            return Response(earlier.answer, earlier.status, REPLAYED, "application/json")
        detail = "this was issued before, and its secret is shown once: delete it, and send the request under a new key"
        return problem_response(409, "already_issued", detail, extra=dict(earlier.issued), headers=REPLAYED)


async def _store(
    session: AsyncSession, keyed: KeyedRequest, *, answer: str | None = None, issued: dict[str, str] | None = None
) -> None:
    session.add(
        models.IdempotencyKey(
            caller=keyed.caller,
            request=keyed.request,
            key=keyed.key,
            customer_id=keyed.customer_id,
            digest=keyed.digest,
            status=keyed.status,
            answer=answer,
            issued=issued,
        )
    )
    await session.flush()


def _name_of(principal: Principal) -> str:
    return principal.customer_id or f"{principal.kind}:{principal.subject}"


def _lock_of(*names: str) -> int:
    """The number of the advisory lock under which a key is used."""
    return int.from_bytes(hashlib.sha256("\0".join(("key", *names)).encode()).digest()[:8], "big", signed=True)
