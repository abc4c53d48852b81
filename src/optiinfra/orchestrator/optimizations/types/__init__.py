"""Optimization types, one module each; `TYPES` has all that the platform can execute."""

from optiinfra.domain.optimization import STEPS
from optiinfra.orchestrator.optimizations.types.base import Registry
from optiinfra.orchestrator.optimizations.types.engine_tuning import ENGINE_TUNING
from optiinfra.orchestrator.optimizations.types.idle_shutdown import IDLE_SHUTDOWN
from optiinfra.orchestrator.optimizations.types.spot_migration import SPOT_MIGRATION

TYPES: Registry = {kind.name: kind for kind in (SPOT_MIGRATION, IDLE_SHUTDOWN, ENGINE_TUNING)}

if unlike := [name for name, kind in TYPES.items() if STEPS.get(name) != kind.step_names]:
    raise TypeError(f"steps differ from the public list in domain.optimization: {', '.join(unlike)}")
