"""Blue-green rollout of a deployment: a canary, half the traffic, all of it, then the old replicas go.

Every action may be repeated: it looks for what it made before it makes anything, and what it removes may be gone.
"""
