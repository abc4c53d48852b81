"""Qdrant: its own shard engine (qdrant-edge) behind a small REST layer of ours.

The engine is the server's, the layer speaks only the routes that the platform's client needs: collections, payload
indexes, points, payloads, and nearest-neighbour queries with filters. Anything else is refused with 501, never answered
wrongly. health-check says on its row that the layer is ours.
"""
