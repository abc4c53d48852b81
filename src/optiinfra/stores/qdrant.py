"""Past outcomes in Qdrant: one point per finished optimization, searched by similarity."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

import httpx

from optiinfra.domain.outcomes import DIMENSIONS, MIN_SIMILARITY, Outcome
from optiinfra.stores.errors import translate_errors

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

_PAGE = 1000


class OutcomeMemory:
    """One collection of outcomes. The agents' API key is read-only.

    Calls raise StoreUnavailable while the server is unavailable.
    """

    def __init__(self, url: str, api_key: str, collection: str) -> None:
        self._url, self._api_key, self._collection = url, api_key, collection

    @cached_property
    def _client(self) -> "AsyncQdrantClient":
        from qdrant_client import AsyncQdrantClient  # imported lazily: takes a second

        with warnings.catch_warnings():
            # The URL decides whether the connection is encrypted; on loopback it need not be.
            warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
            return AsyncQdrantClient(url=self._url, api_key=self._api_key, timeout=10, check_compatibility=False)

    async def ping(self) -> None:
        """Raise StoreUnavailable if the server does not answer."""
        await self._rest("GET", "/collections")

    async def create_schema(self) -> None:
        """Create the collection and its indexes if they are missing.

        Uses plain REST: importing the client would slow every service's start.
        """
        vectors = {"size": DIMENSIONS, "distance": "Cosine"}
        await self._rest("PUT", f"/collections/{self._collection}", {"vectors": vectors}, accept=409)
        for field in ("customer_id", "type"):
            index = {"field_name": field, "field_schema": "keyword"}
            await self._rest("PUT", f"/collections/{self._collection}/index?wait=true", index)

    async def store(
        self,
        customer_id: str,
        optimization_id: str,
        change_type: str,
        features: Sequence[float],
        modelled: Mapping[str, float],
        measured: Mapping[str, float],
    ) -> None:
        """Store one outcome; storing it again replaces it."""
        from qdrant_client import models

        payload: dict[str, Any] = {
            "customer_id": customer_id,
            "optimization_id": optimization_id,
            "type": change_type,
            "modelled": dict(modelled),
            "measured": dict(measured),
        }
        point = models.PointStruct(id=point_id(optimization_id), vector=list(features), payload=payload)
        with translate_client_errors():
            await self._client.upsert(self._collection, [point], wait=True)

    async def similar(
        self, customer_id: str, change_type: str, features: Sequence[float], limit: int = 5
    ) -> list[Outcome]:
        """This customer's most similar past changes of that type, the most similar first."""
        from qdrant_client import models

        wanted = models.Filter(
            must=[
                models.FieldCondition(key="customer_id", match=models.MatchValue(value=customer_id)),
                models.FieldCondition(key="type", match=models.MatchValue(value=change_type)),
            ]
        )
        with translate_client_errors():
            answer = await self._client.query_points(
                self._collection,
                query=list(features),
                query_filter=wanted,
                limit=limit,
                score_threshold=MIN_SIMILARITY,
                with_payload=True,
            )
        return [
            Outcome(payload["optimization_id"], point.score, payload["modelled"], payload["measured"])
            for point in answer.points
            if (payload := point.payload) is not None
        ]

    async def points(self) -> dict[str, tuple[str, str]]:
        """Every point's (customer, optimization) by point id; '' where the payload lacks one."""
        found: dict[str, tuple[str, str]] = {}
        page: Any = None
        while True:
            with translate_client_errors():
                records, page = await self._client.scroll(
                    self._collection, limit=_PAGE, offset=page, with_payload=["customer_id", "optimization_id"]
                )
            for record in records:
                payload = record.payload or {}
                found[str(record.id)] = payload.get("customer_id", ""), payload.get("optimization_id", "")
            if page is None:
                return found

    async def delete_customer(self, customer_id: str) -> None:
        """Delete every outcome of a customer."""
        from qdrant_client import models

        belongs = models.FieldCondition(key="customer_id", match=models.MatchValue(value=customer_id))
        selector = models.FilterSelector(filter=models.Filter(must=[belongs]))
        with translate_client_errors():
            await self._client.delete(self._collection, selector, wait=True)

    async def close(self) -> None:
        """Close the connections, if any were opened."""
        if "_client" in self.__dict__:
            await self._client.close()

    async def _rest(self, method: str, path: str, body: object = None, accept: int = 200) -> None:
        headers = {"api-key": self._api_key}
        with translate_errors("Qdrant", http_outage_reason):
            async with httpx.AsyncClient(base_url=self._url, headers=headers, timeout=10, trust_env=False) as http:
                answer = await http.request(method, path, json=body)
            if answer.status_code != accept:
                answer.raise_for_status()


def translate_client_errors() -> AbstractContextManager[None]:
    """Raise StoreUnavailable instead of the client's errors that mean an outage. Imports the client lazily."""
    from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    def reason(error: Exception) -> str | None:
        if isinstance(error, UnexpectedResponse):
            return _status_reason(error.status_code)
        if isinstance(error, ResponseHandlingException):
            return http_outage_reason(error.source)
        return "HTTP 429" if isinstance(error, ResourceExhaustedResponse) else None

    return translate_errors("Qdrant", reason)


def http_outage_reason(error: Exception) -> str | None:
    if isinstance(error, httpx.HTTPStatusError):
        return _status_reason(error.response.status_code)
    return type(error).__name__ if isinstance(error, httpx.TransportError) else None


def _status_reason(status: int | None) -> str | None:
    """Reason for a temporary status. A wrong key or query stays wrong, and so does an unknown route (501)."""
    temporary = status == 429 or (status is not None and status >= 500 and status != 501)
    return f"HTTP {status}" if temporary else None


def point_id(optimization_id: str) -> str:
    """The point id of an optimization: a UUID derived from its id, since Qdrant takes no other strings."""
    return str(uuid5(NAMESPACE_URL, f"optiinfra:{optimization_id}"))
