"""Qdrant as the platform uses it: the unmodified qdrant-client against our REST layer."""

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from tests.contract.engine import Engine, running

NAME = "outcomes"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running("qdrant") as started:
        yield started


def connect(engine: Engine, key: str) -> QdrantClient:
    return QdrantClient(url=f"http://127.0.0.1:{engine.port}", api_key=key)


@pytest.fixture
def client(engine: Engine) -> Iterator[QdrantClient]:
    made = connect(engine, engine.secret("qdrant_api_key"))
    if made.collection_exists(NAME):
        made.delete_collection(NAME)
    made.create_collection(NAME, vectors_config=models.VectorParams(size=3, distance=models.Distance.COSINE))
    made.create_payload_index(NAME, "customer_id", models.PayloadSchemaType.KEYWORD)
    yield made
    made.close()


def of(customer: str) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key="customer_id", match=models.MatchValue(value=customer))])


def store(client: QdrantClient, customer: str, vector: list[float], **payload: object) -> str:
    point = models.PointStruct(id=str(uuid4()), vector=vector, payload={"customer_id": customer, **payload})
    client.upsert(NAME, [point], wait=True)
    return str(point.id)


def test_query_returns_matching_points_nearest_first(client: QdrantClient) -> None:
    near = store(client, "a", [1, 0, 0])
    far = store(client, "a", [0, 1, 0.1])
    store(client, "b", [1, 0, 0])
    hits = client.query_points(NAME, query=[1, 0.1, 0], query_filter=of("a"), limit=5, with_payload=True).points
    assert [hit.id for hit in hits] == [near, far]
    assert hits[0].score == pytest.approx(0.995, abs=0.001)
    assert hits[0].payload == {"customer_id": "a"}


def test_query_with_a_score_threshold_omits_distant_points(client: QdrantClient) -> None:
    near = store(client, "a", [1, 0, 0])
    store(client, "a", [0, 1, 0])
    hits = client.query_points(NAME, query=[1.0, 0.0, 0.0], score_threshold=0.9).points
    assert [hit.id for hit in hits] == [near]


def test_points_can_be_retrieved_counted_changed_and_replaced(client: QdrantClient) -> None:
    kept = store(client, "a", [1, 0, 0], saved=10)
    client.set_payload(NAME, {"saved": 12}, points=[kept])
    assert client.retrieve(NAME, [kept])[0].payload == {"customer_id": "a", "saved": 12}
    client.upsert(NAME, [models.PointStruct(id=kept, vector=[0, 1, 0], payload={"customer_id": "b"})])
    assert client.retrieve(NAME, [kept], with_vectors=True)[0].vector == [0, 1, 0]
    assert client.count(NAME).count == 1
    assert client.count(NAME, count_filter=of("a")).count == 0


def test_scroll_returns_every_point_once(client: QdrantClient) -> None:
    stored = {store(client, "a", [1, 0, float(number)]) for number in range(25)}
    seen: list[str] = []
    page: int | str | UUID | None = None
    while True:
        records, following = client.scroll(NAME, limit=10, offset=page)
        seen += [str(record.id) for record in records]
        if following is None:
            break
        page = str(following)
    assert len(seen) == 25
    assert set(seen) == stored


def test_points_can_be_deleted_by_id_and_by_filter(client: QdrantClient) -> None:
    first = store(client, "a", [1, 0, 0])
    store(client, "b", [1, 0, 0])
    kept = store(client, "c", [1, 0, 0])
    client.delete(NAME, points_selector=[first])
    client.delete(NAME, points_selector=models.FilterSelector(filter=of("b")))
    records, _ = client.scroll(NAME)
    assert [record.id for record in records] == [kept]


def test_collection_is_described(client: QdrantClient) -> None:
    store(client, "a", [1, 0, 0])
    info = client.get_collection(NAME)
    assert info.points_count == 1
    assert info.payload_schema["customer_id"].data_type == models.PayloadSchemaType.KEYWORD
    with pytest.raises(UnexpectedResponse, match="already exists"):
        client.create_collection(NAME, vectors_config=models.VectorParams(size=3, distance=models.Distance.DOT))


def test_read_only_key_cannot_write(engine: Engine, client: QdrantClient) -> None:
    kept = store(client, "a", [1, 0, 0])
    reader = connect(engine, engine.secret("qdrant_read_only_api_key"))
    assert reader.query_points(NAME, query=[1.0, 0.0, 0.0]).points[0].id == kept
    assert reader.count(NAME).count == 1
    with pytest.raises(UnexpectedResponse, match="403"):
        reader.delete(NAME, points_selector=[kept])
    with pytest.raises(UnexpectedResponse, match="403"):
        reader.delete_collection(NAME)
    reader.close()


def test_wrong_key_is_refused(engine: Engine) -> None:
    stranger = connect(engine, "wrong")
    with pytest.raises(UnexpectedResponse, match="401"):
        stranger.get_collections()
    stranger.close()


def test_unsupported_request_is_refused(client: QdrantClient) -> None:
    with pytest.raises(UnexpectedResponse, match="501"):
        client.query_points(NAME, query=models.SampleQuery(sample=models.Sample.RANDOM))
    with pytest.raises(UnexpectedResponse, match="404"):
        client.count("unknown")


def test_points_survive_a_kill(engine: Engine, client: QdrantClient) -> None:
    stored = [store(client, "a", [1, 0, float(number)]) for number in range(20)]
    engine.kill()
    engine.start()
    assert client.count(NAME, count_filter=of("a")).count == len(stored)
    assert client.get_collection(NAME).payload_schema.keys() == {"customer_id"}
