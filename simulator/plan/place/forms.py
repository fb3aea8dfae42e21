"""A placement in the words of those who must carry it out: a scenario, and each
engine that has words for it.
"""

from __future__ import annotations

from simulator.engine.base import engines
from simulator.engine.form import PlacementForm
from simulator.placement.shard import Placement
from simulator.plan.place.search import PlacementAnswer
from simulator.plan.place.trial import manual

__all__ = ["forms", "scenario_yaml"]


def scenario_yaml(placement: Placement) -> str:
    """The line for a scenario file, which `sim run` and the live commands take."""
    spec = manual(placement)
    parts = [f"layers: {{{', '.join(f'{name}: {count}' for name, count in (spec.layers or {}).items())}}}"]
    if spec.roles:
        parts.append(f"roles: {{{', '.join(f'{name}: {role}' for name, role in spec.roles.items())}}}")
    return f"placement: {{{', '.join(parts)}, min_devices: {spec.min_devices}}}"


def forms(answer: PlacementAnswer) -> tuple[PlacementForm, ...]:
    """The best placement for a scenario file, then for each engine that can be told a placement."""
    placement = answer.best.placement
    assert placement is not None
    line = scenario_yaml(placement)
    told = [flow.form(placement) for flow in engines().values() if flow.form is not None]
    return (PlacementForm("scenario", line, ("in a scenario:", f"  {line}")), *told)
