"""Qdrant: the server's shard engine (qdrant-edge) behind a small REST layer of the testbed.

The layer implements only the routes that the platform uses: collections, payload indexes, points, payloads, and
nearest-neighbour queries with filters. Any other request gets 501. The note of health-check says that the layer is the
testbed's own.
"""
