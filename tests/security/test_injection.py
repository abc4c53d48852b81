"""Injection: a text in any field or parameter of any route is data in PostgreSQL, ClickHouse, Redis and Qdrant."""

import json
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from optiinfra.domain.outcomes import DIMENSIONS
from testbed.waiting import stretched
from tests.helpers.callers import Caller, all_callers, call, unused_address
from tests.helpers.openapi_fields import example, text_places, with_text
from tests.helpers.outcomes import seed_outcome
from tests.helpers.runtime import deployment
from tests.helpers.seeds import seeded
from tests.helpers.service_logs import logs_of
from tests.helpers.stores import Stores
from tests.helpers.template_injection import COMPUTED, EXPRESSION

pytestmark = pytest.mark.security

SLEEP_SECONDS = 30
ATTACKS = {
    "SQL": f"'; UPDATE customers SET plan = 'owned'; SELECT pg_sleep({SLEEP_SECONDS}); --",  # noqa: S608
    "SQL condition": "' OR '1'='1' --",
    "ClickHouse": f"') OR 1 = 1; DROP TABLE samples; SELECT sleepEachRow({SLEEP_SECONDS}) --",
    "ClickHouse parameter": "%(customer)s {customer:String} \\' OR 1 = 1 --",
    "Redis": "\r\n*1\r\n$8\r\nFLUSHALL\r\n*3\r\n$3\r\nSET\r\n$5\r\nowned\r\n$1\r\n1\r\n",
    "Qdrant": '{"must_not": [{"has_id": []}]}, "should": [{}] * ? [^:',
    "template": EXPRESSION,
    "NUL": "before\0after",
    "surrogate": "before\ud800after",
}
STORED = {
    "POST /agent-runtime/connect",
    "PUT /agent-runtime/{runtime_id}/inventory",
    "POST /agent-runtime/{runtime_id}/telemetry",
    "POST /auth/signup",
    "POST /customers/{customer_id}/api-keys",
    "POST /orchestrator/agents/register",
    "POST /recommendations/{recommendation_id}/reject",
}
"""Routes that keep a text of their callers: it must have been tried that they do, and keep it as it is."""


@dataclass
class Attack:
    """One hostile text and what became of it."""

    marker: str
    label: str
    where: str
    text: str
    status: int = 0

    @property
    def kept(self) -> tuple[str, ...]:
        """As it may be stored: unchanged, or without what no store can hold in free JSON and of a path."""
        replaced = self.text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
        of_a_path = self.text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        return self.text, replaced, of_a_path


def _fresh(attack: Attack, body: Any) -> Any:
    """The body with another address or name, where each is taken once, or what was stored under it is replaced."""
    if attack.label == "POST /orchestrator/agents/register":
        return body | {"base_url": unused_address()}
    if attack.label == "PUT /agent-runtime/{runtime_id}/inventory":
        (reported,) = body["deployments"]
        return {"deployments": [reported | {"name": uuid.uuid4().hex}]}
    if attack.where == "company_name":
        return body | {"email": f"{uuid.uuid4().hex}@example.com"}
    return body


@dataclass
class Attacker:
    """Sends hostile texts, each between two marks that are found again wherever it is stored."""

    environment: dict[str, Any]
    http: httpx.Client
    document: dict[str, Any]
    callers: dict[str, Caller]
    ids: dict[str, str]
    run: str = field(default_factory=lambda: f"inj{uuid.uuid4().hex[:8]}")
    attacks: list[Attack] = field(default_factory=list)
    customers: list[str] = field(default_factory=list)
    agents: dict[str, str] = field(default_factory=dict)

    def attack_everything(self) -> None:
        for path, operations in self.document["paths"].items():
            for method, operation in operations.items():
                self._attack(method.upper(), path, operation)

    def _attack(self, method: str, path: str, operation: dict[str, Any]) -> None:
        label, parameters = f"{method} {path}", operation.get("parameters", [])
        body = self._body(label, operation)
        schemas = self.document["components"]["schemas"]
        needed = [each for each in parameters if each["in"] == "query" and each.get("required")]
        query = {each["name"]: str(example(each["schema"], schemas)) for each in needed}
        for given in parameters:
            for name in ATTACKS if method != "DELETE" or given["in"] == "path" else ():
                self._attack_parameter(label, given, ATTACKS[name], body, query)
        for place in [] if body is None else text_places(body):
            for name in ATTACKS:
                made = self._new(label, ".".join(map(str, place)), ATTACKS[name])
                self._send(made, body=with_text(_fresh(made, body), place, made.text))

    def _attack_parameter(self, label: str, given: dict[str, Any], text: str, body: Any, query: dict[str, str]) -> None:
        made = self._new(label, f"{given['in']} {given['name']}", text)
        body = _fresh(made, body)
        if given["in"] == "path":
            self._send(made, body=body, query=query, ids=self.ids | {given["name"]: made.text})
        elif given["in"] == "query":
            self._send(made, body=body, query=query | {given["name"]: made.text})
        elif made.text.isascii() and made.text.isprintable():  # no client sends others in a header
            self._send(made, body=body, query=query, headers={given["name"]: made.text})

    def _new(self, label: str, where: str, text: str) -> Attack:
        marker = f"{self.run}x{len(self.attacks):05}"
        attack = Attack(marker, label, where, f"{marker}{text}{marker}")
        self.attacks.append(attack)
        return attack

    def _send(
        self,
        attack: Attack,
        *,
        body: Any = None,
        ids: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        method, path = attack.label.split(" ", 1)
        caller = self._caller(attack.label, self.document["paths"][path][method.lower()])
        for name, identifier in (ids or self.ids).items():
            path = path.replace(f"{{{name}}}", quote(identifier.encode("utf-8", "surrogatepass"), safe=""))
        # Encoded by hand: the client refuses surrogates.
        asked = {"wait": "0"} | (query or {})
        pairs = [f"{name}={quote(value.encode('utf-8', 'surrogatepass'), safe='')}" for name, value in asked.items()]
        sent = {"X-Trace-Id": attack.marker, **caller.headers, **(headers or {})}
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            sent["Content-Type"] = "application/json"
        began = time.monotonic()
        answer = self.http.request(method, f"{path}?{'&'.join(pairs)}", content=content, headers=sent)
        attack.status = answer.status_code
        assert answer.status_code < 500, f"{attack.label}, {attack.where}: {attack.text!r} was answered {answer.text}"
        assert time.monotonic() - began < SLEEP_SECONDS / 2, f"{attack} was executed"
        assert COMPUTED not in answer.text, f"{attack} was evaluated"
        self._note_created(answer)

    def _note_created(self, answer: httpx.Response) -> None:
        made = answer.json() if answer.status_code == 201 else {}
        if "agent_secret" in made:
            self.agents[made["agent_id"]] = made["agent_secret"]
        elif made.keys() == {"success", "customer_id"}:
            self.customers.append(made["customer_id"])

    def _caller(self, label: str, operation: dict[str, Any]) -> Caller:
        if "security" not in operation:
            return self.callers["anonymous"]
        for beginning, kind in (
            ("POST /orchestrator/agents/register", "enrolment"),
            ("POST /orchestrator/agents/{agent_id}", "agent"),
            ("DELETE /orchestrator/agents/{agent_id}", "agent"),
        ):
            if label.startswith(beginning):
                return self.callers[kind]
        path = label.partition(" ")[2]
        kinds = {"/agent-runtime": "runtime", "/admin": "admin"}
        return next((self.callers[of] for start, of in kinds.items() if path.startswith(start)), self.callers["user"])

    def _body(self, label: str, operation: dict[str, Any]) -> Any:
        """A body with every field of the document; of routes that store texts a valid one."""
        if "requestBody" not in operation:
            return None
        (content,) = operation["requestBody"]["content"].values()
        made = example(content["schema"], self.document["components"]["schemas"])
        at = datetime.now(UTC).isoformat()
        measured = {"deployment_id": self.ids["deployment_id"], "timestamp": at}
        valid: dict[str, dict[str, Any]] = {
            "POST /auth/signup": {"email": "x@example.com", "password": "a long password"},
            "POST /agent-runtime/connect": {
                "customer_id": self.ids["customer_id"],
                "agent_token": self.callers["runtime"].token,
            },
            "POST /orchestrator/agents/register": {"base_url": unused_address(), "capabilities": ["x"]},
            "POST /agent-runtime/{runtime_id}/telemetry": {
                "readings": [measured | {"replica_id": "x", "values": {"throughput": 1.0}}],
                "latencies": [measured | {"replica_id": "x", "le": 1.0, "count": 1}],
            },
            "PUT /agent-runtime/{runtime_id}/inventory": {
                "deployments": [deployment("chat", ["i-1"], "x").model_dump(mode="json") | {"engine_args": {"x": "x"}}]
            },
        }
        assert valid.get(label, {}).keys() <= made.keys(), f"{label} has other fields now"
        return made | valid.get(label, {})

    def clean_up(self) -> None:
        """Delete what was created."""
        # By a new client: the server closes a connection on which it has failed.
        with httpx.Client(base_url=self.http.base_url, timeout=self.http.timeout) as http:
            for agent_id, secret in self.agents.items():
                call(http, "DELETE", f"/orchestrator/agents/{agent_id}", secret)
            for customer_id in self.customers:
                call(http, "DELETE", f"/customers/{customer_id}", self.callers["admin"].token)


@pytest.mark.slow
def test_hostile_text_in_every_field_and_parameter_stays_data_in_all_four_stores(environment: dict[str, Any]) -> None:
    url = environment["urls"]["orchestrator"]
    with (
        httpx.Client(base_url=url, timeout=stretched(SLEEP_SECONDS)) as http,
        closing(Stores(environment)) as stores,
        all_callers(environment) as callers,
        all_callers(environment) as witnesses,
        seeded(environment, callers["user"].ids["customer_id"]) as seeds,
        ExitStack() as cleanup,
    ):
        witness = prepare_witness(cleanup, http, stores, witnesses)
        ids = callers["user"].ids | {
            "deployment_id": report(http, callers),
            "recommendation_id": seeds.recommendation(),
            "analysis_id": "x",
        }
        attacker = Attacker(environment, http, http.get("/openapi.json").json(), callers, ids)
        cleanup.callback(attacker.clean_up)
        before = state(stores, witness)
        attacker.attack_everything()
        assert len({attack.label for attack in attacker.attacks}) > 25, "some routes were not tried"
        check_texts_are_stored_unchanged(stores, attacker)
        assert state(stores, witness) == before, "another customer's data, or a store's structure, has changed"
        check_nothing_was_executed(environment, stores, attacker)


def report(http: httpx.Client, callers: dict[str, Caller]) -> str:
    """Report a deployment; its id."""
    body = {"deployments": [deployment("chat", ["i-1"], "x").model_dump(mode="json")]}
    path = f"/agent-runtime/{callers['runtime'].ids['runtime_id']}/inventory"
    deployment_id: str = call(http, "PUT", path, callers["runtime"].token, body)["deployment_ids"]["chat"]
    return deployment_id


def prepare_witness(cleanup: ExitStack, http: httpx.Client, stores: Stores, callers: dict[str, Caller]) -> str:
    """Another customer with data in all four stores; its id."""
    customer_id = callers["user"].ids["customer_id"]
    reading = {
        "deployment_id": report(http, callers),
        "timestamp": datetime.now(UTC).isoformat(),
        "values": {"throughput": 7.0},
    }
    path = f"/agent-runtime/{callers['runtime'].ids['runtime_id']}/telemetry"
    call(http, "POST", path, callers["runtime"].token, {"readings": [reading]})
    seed_outcome(stores, customer_id, "spot_migration", [1.0] * DIMENSIONS, {"savings": 1.0}, {"savings": 1.0})
    key = f"{stores.namespace}:witness:{customer_id}"
    stores.redis.set(key, customer_id)
    cleanup.callback(stores.redis.delete, key)
    return customer_id


def state(stores: Stores, witness: str) -> dict[str, Any]:
    """All rows, points and keys of the other customer, and which tables there are."""
    tables = stores.clickhouse(f"SELECT name FROM system.tables WHERE database = '{stores.namespace}' ORDER BY name")  # noqa: S608
    return {
        "tables": (sorted(stores.tables()), tables),
        "found": sorted(f"{where}: {document}" for where, document in documents(stores, witness)),
    }


def documents(stores: Stores, text: str) -> Iterator[tuple[str, Any]]:
    """Every row, point and key of the four stores that mentions a text, as JSON."""
    for table in stores.tables():
        query = f"SELECT row_to_json(t) FROM {table} AS t WHERE t::text LIKE %s"  # noqa: S608
        yield from ((f"postgresql {table}", row) for (row,) in stores.sql(query, f"%{text}%"))
    for table in ("samples", "latency_counts"):
        query = f"SELECT * FROM {table} WHERE position(toString(tuple(*)), '{text}') > 0 FORMAT JSONEachRow"  # noqa: S608
        yield from ((f"clickhouse {table}", json.loads(line)) for line in stores.clickhouse(query))
    points, _ = stores.qdrant.scroll(stores.collection, limit=10_000)
    yield from (("qdrant", point.payload) for point in points if text in str(point.payload))
    for key in map(str, stores.redis.scan_iter("*")):
        value = str(stores.redis.get(key)) if stores.redis.type(key) == "string" else ""
        if text in key + value and "LIMITER" not in key:  # counters end by themselves
            yield "redis", [key, value]


def check_texts_are_stored_unchanged(stores: Stores, attacker: Attacker) -> None:
    by_marker = {attack.marker: attack for attack in attacker.attacks}
    mark = re.compile(rf"{attacker.run}x\d{{5}}")
    stored: dict[str, set[str]] = {}
    for where, document in documents(stores, attacker.run):
        for text in texts(document):
            for attack in {marker: by_marker[marker] for marker in mark.findall(text)}.values():
                if text == attack.marker:
                    continue  # the trace id
                assert any(kept in text for kept in attack.kept), f"{where} holds {text!r} of {attack}"
                stored.setdefault(attack.label, set()).add(where.partition(" ")[0])
    assert stored.keys() >= STORED, f"nothing was stored by {STORED - stored.keys()}"
    assert {store for stores_of in stored.values() for store in stores_of} >= {"postgresql", "clickhouse"}
    accepted = {attack.label for attack in attacker.attacks if 200 <= attack.status < 300}
    assert accepted >= STORED


def texts(document: Any) -> Iterator[str]:
    """All texts in a JSON document, keys included."""
    if isinstance(document, str):
        yield document
    elif isinstance(document, list):
        for each in document:
            yield from texts(each)
    elif isinstance(document, dict):
        for name, each in document.items():
            yield name
            yield from texts(each)


def check_nothing_was_executed(environment: dict[str, Any], stores: Stores, attacker: Attacker) -> None:
    assert stores.sql("SELECT count(*) FROM customers WHERE plan = 'owned'") == [(0,)]
    assert not stores.redis.exists("owned")
    log = logs_of(environment)["orchestrator"]
    errors = [
        line
        for line in log.read_text(errors="replace").splitlines()
        if attacker.run in line and json.loads(line)["level"] in ("error", "critical")
    ]
    assert errors == []
