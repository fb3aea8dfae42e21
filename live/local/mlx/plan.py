"""Plan of an MLX cluster: which rank a device is, what it holds, what goes between neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from live.local.mlx.weights import MlxRecipe, model_file, recipe
from live.local.plan import ClusterPlan, check_memory, device_plans, link_shape, model_must_be, prepared_for
from simulator.engine.base import engine
from simulator.errors import LiveError
from simulator.scenario import Scenario

__all__ = ["NAMES", "Messages", "MlxPlan", "plan_mlx"]

NAMES = ("mlx", "mlx-tensor", "exo", "exo-tensor")
FEWEST, MOST = 1, 4
PATIENCE_S = 60.0
"""How long a neighbour may take to listen: as long as a busy machine needs to start a Python with MLX."""
NOTICE_BYTES = 4
BOTH_WAYS_BYTES = 2 * 262144
"""Per rank, from which MLX sends an all-reduce both ways round the ring (`mlx/distributed/ring/ring.cpp`)."""
Messages = list[tuple[int, int]]
"""(How many, bytes of each) in order."""


@dataclass(frozen=True, slots=True)
class MlxPlan(ClusterPlan):
    """Devices by their place in the scenario's ring; `links[r]` leads from rank r to its right neighbour."""

    shape: MlxRecipe
    is_tensor: bool
    is_exo: bool
    """Whether tokens go round as EXO sends them, else as mlx-lm does."""

    @property
    def size(self) -> int:
        """Ranks."""
        return len(self.devices)

    def rank_of(self, place: int) -> int:
        """MLX's number of the device at that place of the ring: mlx-lm's first rank has the last layers."""
        return place if self.is_tensor or self.is_exo else self.size - 1 - place

    def place_of(self, rank: int) -> int:
        """The place in the ring of a rank: numbering it the other way twice is none."""
        return self.rank_of(rank)

    def to_left(self, place: int, prompt_tokens: int, output_tokens: int) -> Messages:
        """What the device at that place sends to its left in one chat.

        An all-reduce and an all-gather of few bytes go left (ring.cpp begins with direction 1, which is
        that), and mlx-lm's pipeline too: from the last rank, with the first layers, to rank 0.
        """
        others, one, before = self.size - 1, self.shape.hidden * 4, prompt_tokens - 1
        notice = [(others, NOTICE_BYTES)] if self.is_exo else []
        if self.is_tensor:
            rounds = 2 * self.shape.layers * 2 * others
            prompt, step = (rounds, before * one // self.size), (rounds, one // self.size)
        else:
            hands_on = place < others and not self.is_exo
            prompt, step = (1 if hands_on else 0, before * one), (others + hands_on, one)
        return _sent([prompt, *[*notice, step] * output_tokens])

    def to_right(self, place: int, prompt_tokens: int, output_tokens: int) -> Messages:
        """The same to its right: the hidden states of EXO's pipeline."""
        one = self.shape.hidden * 4
        if self.is_tensor or not self.is_exo or place == self.size - 1:
            return []
        return _sent([(1, (prompt_tokens - 1) * one), (output_tokens, one)])


def _sent(messages: Messages) -> Messages:
    return [(count, size) for count, size in messages if count and size]


def plan_mlx(scenario: Scenario, threads: int = 1) -> MlxPlan:
    """What `scenario` asks for; makes its model if it is not cached.

    Raises LiveError for what the local MLX cluster cannot do, and whatever preparing the scenario raises.
    """
    prepared = prepared_for(scenario)
    full, job = prepared.scenario, prepared.job
    if full.model.name is None or full.model.gguf:
        raise LiveError(f"{full.name}: the local MLX cluster runs its own models alone; name one as model")
    shape = recipe(full.model.name)
    model_must_be(shape.figures(), prepared, full.model.name)
    flow = engine(full.engine.name)
    is_tensor, is_exo = flow.splits_layers, flow.software == "exo"
    _check(scenario, shape, len(job.ring), is_tensor=is_tensor)
    devices = device_plans(prepared, scenario, threads)
    names = [device.name for device in devices][:: 1 if is_tensor or is_exo else -1]
    links = tuple(
        link_shape(job.cluster, source, sink, full.seed).model_copy(
            update={"messages": "sized", "patience_s": PATIENCE_S}
        )
        for source, sink in _neighbours(names)
    )
    context = full.workload.prompt_tokens + full.workload.output_tokens
    chosen = MlxPlan(prepared, model_file(full.model.name), devices, links, context, shape, is_tensor, is_exo)
    check_memory(chosen)
    return chosen


def _neighbours(names: Sequence[str]) -> list[tuple[str, str]]:
    """Each rank with its right neighbour; none for one rank."""
    return list(zip(names, [*names[1:], names[0]], strict=True)) if len(names) > 1 else []


def _check(scenario: Scenario, shape: MlxRecipe, ranks: int, *, is_tensor: bool) -> None:
    if not FEWEST <= ranks <= MOST:
        raise LiveError(
            f"{scenario.name}: {ranks} devices, but the local MLX cluster runs {FEWEST} to {MOST} ranks; "
            "take some out"
        )
    if any(device.link.power_save for device in scenario.devices.values()):
        raise LiveError(
            f"{scenario.name}: a link dozes (power_save), which the relay of a ring does not play; leave it "
            "out"
        )
    if not is_tensor or ranks == 1:
        return
    if fault := shape.fault_of(ranks):
        raise LiveError(
            f"{scenario.name}: {scenario.model.name} cannot be split among {ranks} ranks: {fault}; take "
            "another number of devices or another model"
        )
    sum_bytes = (scenario.workload.prompt_tokens - 1) * shape.hidden * 4
    if sum_bytes >= ranks * BOTH_WAYS_BYTES:
        most = ranks * BOTH_WAYS_BYTES // (shape.hidden * 4)
        raise LiveError(
            f"{scenario.name}: workload.prompt_tokens is {scenario.workload.prompt_tokens}, and beyond "
            f"{most} MLX sends all-reduces both ways round the ring, which the relay does not follow; take "
            "fewer"
        )
