"""The stores and the mock cloud as ordinary processes, out of wheels: one file an engine.

Each is started as ``python -m testbed.engines.NAME``, reads its settings from ``OPTIINFRA_*`` variables, keeps its data
under ``$OPTIINFRA_STATE_DIR/NAME`` and listens on 127.0.0.1 only.
"""
