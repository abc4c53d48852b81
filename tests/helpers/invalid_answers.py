"""Answers of a cost agent that the platform must not accept."""

from collections.abc import Mapping
from typing import Any

from optiinfra.api.customers import Deployment
from tests.helpers import cloud_state
from tests.helpers.customer import Customer
from tests.helpers.scripted_agent import Reply, draft

_PREDICTED = {"monthly_cost": 0.0, "p95_latency_ms": None, "quality_score": None}


def shutdown_of_idle_instance(owner: Customer) -> dict[str, Any]:
    """A valid shutdown in the estate `startup.yaml`; it saves as much as is possible: the cost of the instance."""
    (idle,) = [each for each in owner.infrastructure().instances if each.instance_type == "g5.12xlarge"]
    parameters = {
        "provider": "aws",
        "region": "us-east-1",
        "instance_ids": [idle.instance_id],
        "idle_since": "2026-01-01T00:00:00Z",
        "hourly_cost": 5.672,
    }
    return {
        "type": "idle_shutdown",
        "estimated_savings": round(cloud_state.HOURLY["g5.12xlarge", "on-demand"] * cloud_state.HOURS_PER_MONTH, 2),
        "affected_resources": [idle.instance_id],
        "parameters": parameters,
    }


def invalid_analyses(owner: Customer) -> dict[str, Mapping[str, Any] | Reply]:
    """Answers to an analysis of that estate, by what is wrong with them."""
    change, deployment = shutdown_of_idle_instance(owner), owner.infrastructure().vllm_deployments[0]
    wrong = _wrong_figures(change["estimated_savings"]) | _wrong_references(change, deployment)
    drafts = {why: [draft(why, **(change | changes))] for why, changes in wrong.items()}
    drafts["second of two drafts"] = [draft("valid", **change), draft("invalid", **change, confidence=2.0)]
    return {why: {"drafts": each, "summary": why} for why, each in drafts.items()} | _no_analyses()


def _wrong_figures(cost: float) -> dict[str, dict[str, Any]]:
    return {
        "no title": {"title": None},
        "confidence above 1": {"confidence": 1.01},
        "negative confidence": {"confidence": -0.01},
        "savings are no number": {"estimated_savings": float("nan")},
        "savings are infinite": {"estimated_savings": float("-inf")},
        "savings above the cost": {"estimated_savings": cost + 1.0},
        "negative cost": {"predicted": _PREDICTED | {"monthly_cost": -0.01}},
        "infinite cost": {"predicted": _PREDICTED | {"monthly_cost": float("inf")}},
        "negative latency": {"predicted": _PREDICTED | {"p95_latency_ms": -1.0}},
        "quality above 1": {"predicted": _PREDICTED | {"quality_score": 1.01}},
        "negative quality": {"predicted": _PREDICTED | {"quality_score": -0.01}},
        "features are no numbers": {"features": [float("nan")]},
        "unknown type": {"type": "shutdown"},
        "type of another agent": {"type": "scale_out", "parameters": {}},
        "unknown risk": {"risk_level": "none"},
        "text that cannot be stored": {"title": "null \0 character"},
    }


def _wrong_references(change: Mapping[str, Any], deployment: Deployment) -> dict[str, dict[str, Any]]:
    replicas = [engine.instance_id for engine in deployment.engines]
    parameters = {
        "deployment": deployment.name,
        "provider": "aws",
        "region": "us-east-1",
        "instance_type": "g5.xlarge",
        "count": len(replicas),
        "source_instance_ids": replicas,
        "spot_price": 0.4,
        "ondemand_price": 1.0,
        "interruptions_per_month": 0.1,
    }
    migration = {
        "type": "spot_migration",
        "deployment_id": deployment.deployment_id,
        "affected_resources": [deployment.deployment_id, *replicas],
        "parameters": parameters,
    }
    return {
        "unknown instance": {"affected_resources": [*change["affected_resources"], "i-00000000000000000"]},
        "no parameters": {"parameters": {}},
        "undeclared instance": {"affected_resources": replicas},
        "shutdown for a deployment": {"deployment_id": deployment.deployment_id},
        "migration of another deployment": migration | {"parameters": parameters | {"deployment": "another"}},
        "undeclared replica": migration | {"affected_resources": [deployment.deployment_id, *replicas[1:]]},
        "migration of an idle instance": migration
        | {
            "affected_resources": [deployment.deployment_id, *replicas, *change["affected_resources"]],
            "parameters": parameters
            | {"source_instance_ids": [*replicas, *change["affected_resources"]], "count": len(replicas) + 1},
        },
        "more instances than replaced": migration | {"parameters": parameters | {"count": len(replicas) + 1}},
        "savings of another resource": {"affected_resources": [], "type": "region_advice", "parameters": {}},
    }


def _no_analyses() -> dict[str, Mapping[str, Any] | Reply]:
    valid = b'{"drafts": [], "summary": "s"}'
    return {
        "no summary": {"drafts": []},
        "drafts are no list": {"drafts": "none", "summary": "s"},
        "no object": Reply(body=b"[]"),
        "no JSON": Reply(body=b"<html>busy</html>"),
        "nothing": Reply(body=b""),
        "nested too deep": Reply(body=b'{"summary":' + b"[" * 100_000),
        "no success": Reply(500, body=valid),
        "other 503": Reply(503, body=valid),
        "redirect": Reply(302, body=valid),
    }
