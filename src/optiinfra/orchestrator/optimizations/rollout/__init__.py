"""Blue-green rollout of a deployment: a canary, half the traffic, all of it, then removal of the old replicas.

Actions are idempotent: they find existing resources before creating any, and tolerate missing ones.
"""
