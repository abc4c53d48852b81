"""Spot migration: a deployment moves from on-demand to spot instances of the same type."""

from optiinfra.api.parameters import SpotMigrationParameters
from optiinfra.orchestrator.optimizations.rollout.new_instances import NewInstances, Targets
from optiinfra.orchestrator.optimizations.rollout.snapshot import DeploymentSnapshot, take_snapshot
from optiinfra.orchestrator.optimizations.types.base import OptimizationType, Step, nothing_to_roll_back

ROLLOUT = NewInstances(
    targets=lambda context: Targets(context.parameters.instance_type, context.parameters.count, lifecycle="spot"),
    judged_in="full_migration",
)


SPOT_MIGRATION = OptimizationType(
    name="spot_migration",
    parameters=SpotMigrationParameters,
    snapshot=DeploymentSnapshot,
    steps=(
        Step("create_spot_instances", ROLLOUT.create_targets, ROLLOUT.remove_targets),
        Step("deploy_canary", ROLLOUT.deploy_canary, ROLLOUT.remove_canary),
        Step("validate_canary", ROLLOUT.validate, nothing_to_roll_back),
        Step("scale_to_50_percent", ROLLOUT.scale_to_half, ROLLOUT.remove_half),
        Step("validate_50_percent", ROLLOUT.validate, nothing_to_roll_back),
        Step("full_migration", ROLLOUT.shift_fully, ROLLOUT.remove_rest),
        Step("terminate_ondemand", ROLLOUT.retire_sources, ROLLOUT.restore_sources),
    ),
    instance_ids=lambda parameters: parameters.source_instance_ids,
    take_snapshot=take_snapshot,
    measure_result=ROLLOUT.measure_result,
    is_restored=ROLLOUT.is_restored,
)
