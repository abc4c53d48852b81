"""Live updates: every event of one's own customer, once and in order, also after a reconnection."""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Thread
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from testbed.waiting import stretched, wait_until
from tests.helpers.accounts import add_user
from tests.helpers.callers import Caller, bearer
from tests.helpers.customer import Customer
from tests.helpers.database import execute
from tests.helpers.live import Sent, connect_live, receive, server_sent, take
from tests.helpers.private_platform import PrivatePlatform, private_platform_over
from tests.helpers.runtime import customer_without_fleet
from tests.helpers.seeds import Seeds, seeded

pytestmark = pytest.mark.integration

WRITERS, ANALYSES, REJECTIONS = 4, 2, 5
"""How many threads write at the same time, and what each of them does."""
AT_ONCE_SECONDS = 2.0
"""A live event arrives in less, unless its wake-up is lost: readers look by themselves every ten seconds."""
HISTORY = 250
"""Events from before; streams read them a hundred at a time."""


@pytest.mark.slow
def test_live_updates_arrive_in_order(environment: dict[str, Any], callers: dict[str, Caller]) -> None:
    with (
        customer_without_fleet(environment) as mine,
        customer_without_fleet(environment) as other,
        seeded(environment, mine.id) as seeds,
        seeded(environment, other.id) as foreign,
    ):
        check_who_may_listen(mine, other, callers)
        viewer = add_user(environment, mine.id, "viewer").sign_in(mine.http)["access_token"]
        with (
            connect_live(mine.http.base_url, mine.id, token_of(mine)) as first,
            connect_live(mine.http.base_url, f"{mine.id}?after=0", viewer) as second,
            connect_live(other.http.base_url, other.id, token_of(other)) as elsewhere,
            portal_of(mine) as portal,
            server_sent(portal, after=0) as sent,
        ):
            write_concurrently([(mine, seeds), (other, foreign)])
            stored = check_stored(environment, mine)
            seen = receive(first, len(stored))
            assert seen == stored
            assert receive(second, len(stored)) == stored
            check_server_sent(take(sent, len(stored)), stored)
            theirs = check_stored(environment, other)
            assert receive(elsewhere, len(theirs)) == theirs
            check_last(mine, seeds, len(stored) + 1, [first, second], sent)
            check_last(other, foreign, len(theirs) + 1, [elsewhere])
        check_pages(mine)


def check_who_may_listen(mine: Customer, other: Customer, callers: dict[str, Caller]) -> None:
    """Streams and pages of a customer are for the customer's own users."""
    strangers = [token_of(other), *(callers[kind].token for kind in ("runtime", "agent", "enrolment", "admin"))]
    for token in [*strangers, None, "garbage"]:
        with pytest.raises(InvalidStatus, match="403"):
            connect_live(mine.http.base_url, mine.id, token)
    statuses = [
        mine.http.get(f"/customers/{mine.id}/events", headers=bearer(f"{token}")).status_code for token in strangers
    ]
    assert statuses == [404, 403, 403, 403, 403]


def write_concurrently(customers: Sequence[tuple[Customer, Seeds]]) -> None:
    """Several threads start analyses and reject recommendations of each customer; returns when all is done."""
    with ThreadPoolExecutor(WRITERS * len(customers)) as threads:
        written = [
            threads.submit(write, customer, [seeds.recommendation() for _ in range(REJECTIONS)])
            for customer, seeds in customers
            for _ in range(WRITERS)
        ]
    for one in written:
        one.result()


def write(customer: Customer, recommendations: Sequence[str]) -> None:
    """Analyses that find nothing, and rejections between them."""
    analyses = [customer.start_analysis("resource") for _ in range(ANALYSES)]
    reject_all(customer, recommendations)
    for analysis in analyses:
        assert customer.wait_for_analysis(analysis).status == "completed"


def reject(customer: Customer, recommendation: str) -> None:
    """Cause one event."""
    customer.post(f"/recommendations/{recommendation}/reject", {"reason": recommendation})


def reject_all(customer: Customer, recommendations: Sequence[str]) -> None:
    """Cause one event after the other."""
    for recommendation in recommendations:
        reject(customer, recommendation)


def check_stored(environment: dict[str, Any], customer: Customer) -> list[dict[str, Any]]:
    """The events in PostgreSQL, as streams show them: exactly those of what was written, numbered without gaps."""
    columns = "id, seq, event_type, source, agent_type, payload, created_at, optimization_id, step, status, progress"
    query = f"SELECT {columns} FROM events WHERE customer_id = %s ORDER BY seq"  # noqa: S608
    rows = execute(environment, query, customer.id)
    events = [dict(zip(columns.split(", "), row, strict=True)) for row in rows]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    last = execute(environment, "SELECT last_event_seq FROM customers WHERE id = %s", customer.id)
    assert last == [(len(events),)]
    for event in events:
        event["created_at"] = event["created_at"].isoformat().replace("+00:00", "Z")
    found = [(event["event_type"], event["source"], event["agent_type"]) for event in events]
    analyses = WRITERS * ANALYSES
    assert found.count(("analysis_started", "customer", "resource")) == analyses
    assert found.count(("analysis_completed", "agent", "resource")) == analyses
    assert found.count(("recommendation_rejected", "customer", None)) == WRITERS * REJECTIONS
    assert len(found) == 2 * analyses + WRITERS * REJECTIONS
    ids: dict[str, list[Any]] = {}
    for event in events:
        ids.setdefault(event["event_type"], []).append(event["payload"].get("analysis_id"))
    assert sorted(ids["analysis_started"]) == sorted(ids["analysis_completed"])
    for analysis in ids["analysis_started"]:
        order = [event["event_type"] for event in events if event["payload"].get("analysis_id") == analysis]
        assert order == ["analysis_started", "analysis_completed"]
    for event in events:
        if event["event_type"] == "analysis_completed":
            assert event["payload"].keys() == {"analysis_id", "status", "summary", "error"}
            assert (event["payload"]["status"], event["payload"]["error"]) == ("completed", None)
    return events


def check_server_sent(sent: Sequence[Sent], stored: Sequence[dict[str, Any]]) -> None:
    """The portal relays each event under its number."""
    assert [(one.id, one.event) for one in sent] == [(str(event["seq"]), "change") for event in stored]
    assert [one.data for one in sent] == list(stored)


def check_last(
    customer: Customer,
    seeds: Seeds,
    seq: int,
    sockets: Sequence[ClientConnection],
    sent: Iterator[Sent] | None = None,
) -> None:
    """One more event is the next that every stream delivers, at once."""
    recommendation = seeds.recommendation()
    reject(customer, recommendation)
    began = time.monotonic()
    last = [receive(socket, 1)[0] for socket in sockets]
    if sent is not None:
        last += [one.data for one in take(sent, 1)]
    took = time.monotonic() - began
    assert [(event["seq"], event["payload"]["recommendation_id"]) for event in last] == [(seq, recommendation)] * len(
        last
    )
    assert took < stretched(AT_ONCE_SECONDS), f"the event took {took:.1f} s"


def check_pages(customer: Customer) -> None:
    """The pages of the list join to the whole, whatever their size."""
    whole = customer.get(f"/customers/{customer.id}/events", limit=1000)
    assert customer.get(f"/customers/{customer.id}/events/latest") == {"seq": len(whole)}
    for size in (1, 7, len(whole)):
        pages: list[dict[str, Any]] = []
        while page := customer.get(f"/customers/{customer.id}/events", after=len(pages), limit=size):
            assert len(page) == min(size, len(whole) - len(pages))
            pages += page
        assert pages == whole


@pytest.fixture
def platform(environment: dict[str, Any]) -> Iterator[PrivatePlatform]:
    """Services that may be killed, and lose Redis."""
    with private_platform_over(environment, f"live-{os.getpid()}", proxied=("redis",), agents=False) as started:
        yield started


@pytest.mark.slow
def test_reconnection_replays_exactly_what_was_missed(platform: PrivatePlatform) -> None:
    with (
        customer_without_fleet(platform.document) as customer,
        seeded(platform.document, customer.id) as seeds,
        portal_of(customer) as portal,
    ):
        write_history(platform.document, customer)
        latest = check_replay(customer, seeds, portal)
        latest = check_interruptions(customer, seeds, latest)
        latest = check_lost_wake_ups(platform, customer, seeds, latest)
        check_restart(platform, customer, seeds, portal, latest)


def write_history(environment: dict[str, Any], customer: Customer) -> None:
    """Events of the past, which no stream has seen."""
    execute(
        environment,
        """INSERT INTO events (customer_id, seq, id, event_type, source, payload)
           SELECT %s, n, 'evt_' || n || %s, 'analysis_started', 'customer', '{}' FROM generate_series(1, %s) AS n""",
        customer.id,
        customer.id,
        HISTORY,
    )
    execute(environment, "UPDATE customers SET last_event_seq = %s WHERE id = %s", HISTORY, customer.id)


def check_replay(customer: Customer, seeds: Seeds, portal: httpx.Client) -> int:
    """A stream begins after the number that it is given, wherever that lies in a page, and goes on with new events."""
    for seen in (0, 1, 49, 50, 51, 99, 100, 101, HISTORY - 1, HISTORY):
        began = time.monotonic()
        with stream(customer, seen) as socket:
            assert numbers(receive(socket, HISTORY - seen)) == list(range(seen + 1, HISTORY + 1))
        assert time.monotonic() - began < stretched(AT_ONCE_SECONDS), f"the replay after {seen} waited"
    for after, last, begins in ((40, None, 41), (40, 120, 121), (120, 40, 41), (0, HISTORY - 1, HISTORY)):
        with server_sent(portal, after, last) as sent:
            taken = take(sent, HISTORY - begins + 1)
            assert [one.id for one in taken] == [str(seq) for seq in range(begins, HISTORY + 1)]
    with stream(customer, HISTORY) as socket, server_sent(portal, 0, HISTORY) as sent:
        check_last(customer, seeds, HISTORY + 1, [socket], sent)
    return HISTORY + 1


def check_interruptions(customer: Customer, seeds: Seeds, latest: int) -> int:
    """A reader that loses its connection again and again while others write misses nothing, and gets nothing twice."""
    recommendations = [seeds.recommendation() for _ in range(20)]
    writer = Thread(target=reject_all, args=(customer, recommendations))
    writer.start()
    received = list(range(1, latest - 60))
    try:
        while len(received) < latest + len(recommendations):
            with stream(customer, len(received)) as socket:
                received += numbers(receive(socket, min(7, latest + len(recommendations) - len(received))))
                socket.socket.close()  # without a goodbye
    finally:
        writer.join()
    assert received == list(range(1, latest + len(recommendations) + 1))
    return len(received)


def check_lost_wake_ups(platform: PrivatePlatform, customer: Customer, seeds: Seeds, latest: int) -> int:
    """Without Redis, events arrive late, but each once."""
    with stream(customer, latest) as before, platform.proxies["redis"].failing("refused"):
        reject(customer, seeds.recommendation())
        with stream(customer, latest) as during:
            assert numbers(receive(before, 1)) == numbers(receive(during, 1)) == [latest + 1]
            reject(customer, seeds.recommendation())
            assert numbers(receive(before, 1)) == numbers(receive(during, 1)) == [latest + 2]
    return latest + 2


def check_restart(
    platform: PrivatePlatform, customer: Customer, seeds: Seeds, portal: httpx.Client, latest: int
) -> None:
    """After a crash of the orchestrator readers reconnect to what they have missed, and to what follows."""
    with stream(customer, latest) as socket, server_sent(portal, latest) as sent:
        reject(customer, seeds.recommendation())
        assert numbers(receive(socket, 1)) == [int(one.id) for one in take(sent, 1)] == [latest + 1]
        platform.kill("optiinfra.orchestrator")
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=stretched(10))
        assert list(sent) == []
    wait_until(
        lambda: customer.http.get("/ready").status_code,
        "the orchestrator to restart",
        60,
        accept=lambda status: status == httpx.codes.OK,
        transient=(httpx.TransportError,),
    )
    missed = [seeds.recommendation() for _ in range(3)]
    reject_all(customer, missed)
    with stream(customer, latest + 1) as socket, server_sent(portal, 0, latest + 1) as sent:
        events = receive(socket, len(missed))
        assert [event["payload"]["recommendation_id"] for event in events] == missed
        assert [one.data for one in take(sent, len(missed))] == events
        assert numbers(events) == [latest + 2, latest + 3, latest + 4]
        check_last(customer, seeds, latest + 5, [socket], sent)


def token_of(customer: Customer) -> str:
    """The access token of the customer's owner."""
    return str(customer.http.headers["authorization"].removeprefix("Bearer "))


def stream(customer: Customer, after: int) -> ClientConnection:
    """A WebSocket of the customer's owner that begins after that number."""
    return connect_live(customer.http.base_url, f"{customer.id}?after={after}", token_of(customer))


@contextmanager
def portal_of(customer: Customer) -> Iterator[httpx.Client]:
    """The portal, with the owner's token."""
    headers = {"authorization": customer.http.headers["authorization"]}
    with httpx.Client(base_url=customer.seeded.portal_url, headers=headers) as portal:
        yield portal


def numbers(events: Sequence[dict[str, Any]]) -> list[int]:
    """The numbers of events."""
    return [event["seq"] for event in events]
