"""The stores and the mock cloud as plain processes that run from wheels, one module for each.

Each is started as `python -m testbed.engines.NAME`, reads its settings from `OPTIINFRA_*` variables, stores its data
under `$OPTIINFRA_STATE_DIR/NAME`, and listens on 127.0.0.1 only, unless a stand-in image sets `OPTIINFRA_HOST`.
"""
