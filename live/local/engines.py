"""The engines of which a cluster can be started on this machine, and which of them a scenario asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from live.local import library
from live.local.breaking import BreakableCluster
from live.local.cluster import LocalCluster
from live.local.conversation import Callbacks, Conversation, PlainConversation, Tell
from live.local.mlx.cluster import MlxCluster
from live.local.mlx.environment import MLX as MLX_ENVIRONMENT
from live.local.mlx.plan import NAMES as MLX_NAMES
from live.local.mlx.plan import plan_mlx
from live.local.mlx.reference import MlxReference
from live.local.petals.cluster import PetalsCluster
from live.local.petals.environment import PETALS as PETALS_ENVIRONMENT
from live.local.petals.foreign import ForeignSwarm, plan_foreign
from live.local.petals.plan import plan_petals
from live.local.petals.reference import PetalsReference
from live.local.plan import ENGINE_NAME, ClusterPlan, plan
from live.local.reference import Reference, RpcReference
from simulator.engine.base import engine
from simulator.errors import LiveError
from simulator.scenario import Scenario

__all__ = ["LocalEngine", "local_engine"]

Endpoints = tuple[str, ...]
PETALS_PACKAGES = ("petals", "hivemind", "torch", "transformers")


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """What `run` needs of an engine; everything else is the same for all."""

    names: tuple[str, ...]
    """The engines of scenarios that it is."""
    require: Callable[[], None]
    plan: Callable[[Scenario, int], ClusterPlan]
    cluster: Callable[[ClusterPlan, Endpoints], LocalCluster]
    talk: Callable[[ClusterPlan, LocalCluster, Callbacks, Tell], PlainConversation]
    reference: Callable[[], Reference]
    versions: Callable[[], Mapping[str, str]]
    """Of what was installed for it, by package."""


def _rpc_talk(
    chosen: ClusterPlan, cluster: LocalCluster, callbacks: Callbacks, tell: Tell
) -> PlainConversation:
    assert isinstance(cluster, BreakableCluster)
    return Conversation(chosen, cluster, callbacks, tell)


def _require_here(chosen: ClusterPlan, endpoints: Endpoints) -> None:
    if endpoints:
        raise LiveError(
            f"{chosen.scenario.name}: engine {chosen.scenario.engine.name} runs on this machine alone; say "
            "--cluster local, or measure real machines with --cluster exo://HOST:52415, petals://MULTIADDRESS"
        )


def _mlx_cluster(chosen: ClusterPlan, endpoints: Endpoints) -> LocalCluster:
    _require_here(chosen, endpoints)
    return MlxCluster(chosen)  # type: ignore[arg-type]  # `plan` of the same engine made it


def _petals_cluster(chosen: ClusterPlan, endpoints: Endpoints) -> LocalCluster:
    _require_here(chosen, endpoints)
    return PetalsCluster(chosen)  # type: ignore[arg-type]  # as above


def _foreign_swarm(chosen: ClusterPlan, endpoints: Endpoints) -> LocalCluster:
    return ForeignSwarm(chosen, endpoints)  # type: ignore[arg-type]  # as above


def _petals_versions() -> dict[str, str]:
    found = PETALS_ENVIRONMENT.versions()
    return {package: found[package] for package in PETALS_PACKAGES}


RPC = LocalEngine(
    names=(ENGINE_NAME,),
    require=library.require,
    plan=plan,
    cluster=BreakableCluster,
    talk=_rpc_talk,
    reference=RpcReference,
    versions=library.versions,
)
MLX = LocalEngine(
    names=MLX_NAMES,
    require=MLX_ENVIRONMENT.require,
    plan=plan_mlx,
    cluster=_mlx_cluster,
    # a ring that loses a rank ends as a whole
    talk=PlainConversation,
    reference=MlxReference,
    versions=MLX_ENVIRONMENT.versions,
)

PETALS = LocalEngine(
    names=("petals",),
    require=PETALS_ENVIRONMENT.require,
    plan=plan_petals,
    cluster=_petals_cluster,
    # its client mends itself, or not at all
    talk=PlainConversation,
    reference=PetalsReference,
    versions=_petals_versions,
)
SWARM = replace(PETALS, require=PETALS_ENVIRONMENT.require, plan=plan_foreign, cluster=_foreign_swarm)
"""A swarm that others have set up."""
ENGINES, ELSEWHERE = (RPC, MLX, PETALS), (RPC, MLX, SWARM)


def local_engine(scenarios: Sequence[Scenario], *, elsewhere: bool = False) -> LocalEngine:
    """The engine that all of these scenarios ask for, here or
    `elsewhere`; raises LiveError where none, or where they differ.
    """
    found = {}
    for one in scenarios:
        name = engine(one.engine.name).name
        fitting = [local for local in (ELSEWHERE if elsewhere else ENGINES) if name in local.names]
        if not fitting:
            known = ", ".join(name for local in ENGINES for name in local.names)
            raise LiveError(
                f"{one.name}: engine is {one.engine.name}, but the local cluster runs {known}; set `engine: "
                f"{ENGINE_NAME}`, `engine: petals` or `engine: {{name: mlx, sharding: pipeline}}`"
            )
        found[fitting[0].names] = fitting[0]
    if len(found) > 1:
        raise LiveError(
            "the scenarios have engines of several clusters (llama.cpp, MLX, Petals); measure them one after "
            "the other"
        )
    return next(iter(found.values()))
