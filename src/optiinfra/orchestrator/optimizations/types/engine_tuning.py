"""Engine tuning: a deployment's engines get other arguments, on the instances that they run on."""

from optiinfra.api.parameters import EngineTuningParameters
from optiinfra.orchestrator.optimizations.rollout.new_engine_args import NewEngineArgs
from optiinfra.orchestrator.optimizations.rollout.snapshot import DeploymentSnapshot, take_snapshot
from optiinfra.orchestrator.optimizations.types.base import OptimizationType, Step, nothing_to_roll_back

ROLLOUT = NewEngineArgs(engine_args=lambda context: context.parameters.engine_args, judged_in="full_rollout")


ENGINE_TUNING = OptimizationType(
    name="engine_tuning",
    parameters=EngineTuningParameters,
    snapshot=DeploymentSnapshot,
    steps=(
        Step("snapshot_configuration", ROLLOUT.snapshot_configuration, nothing_to_roll_back),
        Step("deploy_canary", ROLLOUT.deploy_canary, ROLLOUT.remove_canary),
        Step("validate_canary", ROLLOUT.validate, nothing_to_roll_back),
        Step("scale_to_50_percent", ROLLOUT.scale_to_half, ROLLOUT.roll_back_half),
        Step("validate_50_percent", ROLLOUT.validate, nothing_to_roll_back),
        Step("full_rollout", ROLLOUT.roll_out_fully, ROLLOUT.roll_back_rest),
        Step("retire_previous", ROLLOUT.remove_canary, ROLLOUT.restore_canary),
    ),
    instance_ids=lambda parameters: parameters.source_instance_ids,
    take_snapshot=take_snapshot,
    measure_result=ROLLOUT.measure_result,
    is_restored=ROLLOUT.is_restored,
)
