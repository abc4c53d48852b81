"""Collections on disk: one folder for each, with the creation request and the engine's shard."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from testbed.engines.qdrant import translate
from testbed.engines.qdrant.translate import BadRequestError, Json


class NotFoundError(Exception):
    """The collection or point does not exist."""


class ConflictError(Exception):
    """The collection already exists."""


class Collection:
    """A collection with one shard. Acknowledged writes are in the write-ahead log and survive kill -9."""

    def __init__(self, config: Json, shard: Any) -> None:
        self._config = config
        self._shard = shard
        self._operations = 0

    def close(self) -> None:
        """Flush all writes and close the files."""
        self._shard.flush()
        self._shard.close()

    def _update(self, operation: Any) -> Json:
        self._shard.update(operation)
        self._operations += 1
        return {"operation_id": self._operations, "status": "completed"}

    def info(self) -> Json:
        """`GET /collections/{name}`."""
        info = self._shard.info()
        schema = {
            key: {"data_type": str(index.data_type).rsplit(".", 1)[-1].lower(), "points": index.points}
            for key, index in info.payload_schema.items()
        }
        params = {"vectors": self._config["vectors"], "shard_number": 1, "replication_factor": 1}
        return {
            "status": "green",
            "optimizer_status": "ok",
            "points_count": info.points_count,
            "indexed_vectors_count": info.indexed_vectors_count,
            "segments_count": info.segments_count,
            "payload_schema": schema,
            "config": {
                "params": params | {"write_consistency_factor": 1, "on_disk_payload": True},
                "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
                "optimizer_config": {
                    "deleted_threshold": 0.2,
                    "vacuum_min_vector_number": 1000,
                    "default_segment_number": 0,
                    "flush_interval_sec": 5,
                },
                "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
            },
        }

    def create_index(self, body: Json) -> Json:
        """`PUT /collections/{name}/index`."""
        schema = translate.field_schema(body["field_schema"])
        return self._update(edge.UpdateOperation.create_field_index(body["field_name"], schema))

    def upsert(self, body: Json) -> Json:
        """`PUT .../points`."""
        return self._update(edge.UpdateOperation.upsert_points(translate.points_of(body)))

    def delete(self, body: Json) -> Json:
        """`POST .../points/delete`, by ids or by filter."""
        if "points" in body:
            ids = translate.checked_ids(body["points"])
            return self._update(edge.UpdateOperation.delete_points(ids))
        return self._update(edge.UpdateOperation.delete_points_by_filter(_required_filter(body)))

    def set_payload(self, body: Json) -> Json:
        """`POST .../points/payload`, by ids or by filter."""
        if body.get("points") is not None:
            ids = translate.checked_ids(body["points"])
            return self._update(edge.UpdateOperation.set_payload(ids, body["payload"], body.get("key")))
        chosen = _required_filter(body)
        return self._update(edge.UpdateOperation.set_payload_by_filter(chosen, body["payload"], body.get("key")))

    def retrieve(self, body: Json) -> list[Json]:
        """`POST .../points`."""
        payload = translate.selector(body.get("with_payload", True))
        records = self._shard.retrieve(translate.checked_ids(body["ids"]), payload, body.get("with_vector") or False)
        return [translate.record(record) for record in records]

    def scroll(self, body: Json) -> Json:
        """`POST .../points/scroll`, ordered by id."""
        if body.get("order_by"):
            raise translate.UnsupportedError("order_by is not part of the embedded Qdrant")
        request = edge.ScrollRequest(
            offset=body.get("offset"),
            limit=body.get("limit") or 10,
            filter=translate.filter_of(body.get("filter")),
            with_payload=translate.selector(body.get("with_payload", True)),
            with_vector=body.get("with_vector") or False,
        )
        records, following = self._shard.scroll(request)
        next_page = None if following is None else translate.point_id(following)
        return {"points": [translate.record(record) for record in records], "next_page_offset": next_page}

    def count(self, body: Json) -> Json:
        """`POST .../points/count`."""
        request = edge.CountRequest(body.get("exact", True), translate.filter_of(body.get("filter")))
        return {"count": self._shard.count(request)}

    def query(self, body: Json) -> Json:
        """`POST .../points/query`: nearest neighbours that match the filter."""
        if body.get("prefetch"):
            raise translate.UnsupportedError("prefetch is not part of the embedded Qdrant")
        payload = body.get("with_payload")
        request = edge.QueryRequest(
            limit=body.get("limit") or 10,
            offset=body.get("offset") or 0,
            query=translate.nearest(body.get("query"), body.get("using")),
            with_vector=body.get("with_vector") or False,
            with_payload=translate.selector(False if payload is None else payload),
            filter=translate.filter_of(body.get("filter")),
            score_threshold=body.get("score_threshold"),
        )
        return {"points": [translate.scored(hit) for hit in self._shard.query(request)]}


def _required_filter(body: Json) -> Any:
    chosen = translate.filter_of(body.get("filter"))
    if chosen is None:
        raise BadRequestError("give `points` or a `filter` that is not empty")
    return chosen


class Collections:
    """All collections under one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: dict[str, Collection] = {}
        for description in sorted(root.glob("*/collection.json")):
            shard = edge.EdgeShard.load(str(description.parent / "shard"))
            self._open[description.parent.name] = Collection(json.loads(description.read_text()), shard)

    def names(self) -> list[str]:
        """The names of all collections."""
        return sorted(self._open)

    def get(self, name: str) -> Collection:
        """The collection, or NotFoundError."""
        if name not in self._open:
            raise NotFoundError(f"Not found: Collection `{name}` doesn't exist!")
        return self._open[name]

    def create(self, name: str, body: Json) -> bool:
        """Create a collection. Its description is written last, so that an incomplete one is never loaded."""
        if name in self._open:
            raise ConflictError(f"Wrong input: Collection `{name}` already exists!")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", name):
            raise BadRequestError(f"{name!r} is not a collection name: use letters, digits, `_` and `-`")
        config = translate.shard_config(body)
        folder = self._root / name
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "shard").mkdir(parents=True)
        shard = edge.EdgeShard.create(str(folder / "shard"), config)
        partial = folder / "collection.json.partial"
        partial.write_text(json.dumps(body))
        partial.rename(folder / "collection.json")
        self._open[name] = Collection(body, shard)
        return True

    def drop(self, name: str) -> bool:
        """Delete a collection with its data. False when there is none, as on the server."""
        collection = self._open.pop(name, None)
        if collection is None:
            return False
        collection.close()
        (self._root / name / "collection.json").unlink()
        shutil.rmtree(self._root / name)
        return True

    def close(self) -> None:
        """Close every collection."""
        for collection in self._open.values():
            collection.close()
