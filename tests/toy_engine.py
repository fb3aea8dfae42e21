"""A toy engine in one file, as an engine that somebody adds would be: a bucket brigade.

Each device computes its layers and hands the hidden state to the next; the last one computes the head and shouts
the token to the first, which begins the next one; chats are answered one after the other. `CONTRIBUTING.md`
sends people here.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import simpy

from simulator.cluster.cluster import Device
from simulator.engine.base import Engine
from simulator.engine.facts import EngineFacts, RecoveryFacts, SourcedLaw
from simulator.laws.law import Constant, Floats
from simulator.placement.request import PlacementRequest
from simulator.placement.rules import Rule
from simulator.placement.shard import Placement
from simulator.runtime.cost import crowding, decode_s, head_s, prefill_s
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.runtime.mean_costs import MeanCosts
from simulator.runtime.network import Network
from simulator.runtime.paging import paging_s
from simulator.runtime.record import Recorder
from simulator.runtime.ring_costs import RingCosts

SHOUT_BYTES = 4


def stage_s(job: Job, draws: Draws, rank: int, chat: int) -> Floats:
    """A rank's work for each token of a chat, shape (tokens, rows)."""
    device, held = job.ring[rank], job.held(rank)
    context = job.workload.prompt_tokens + np.arange(job.workload.output_tokens, dtype=float)
    fixed_s = paging_s(job, rank) + (head_s(device, job.model) if rank == len(job.ring) - 1 else 0.0)
    work = draws.decode_s(device, held, context, 1, fixed_s)
    prompt_s = prefill_s(device, held, job.workload.prompt_tokens) + fixed_s
    work[0] = prompt_s * draws.speed_factor(device, "prefill")
    host_s = job.engine.step_overhead_s * draws.overhead("step") + device.speed.stage_overhead
    return (work + host_s * crowding(device)) * draws.noise(device, f"decode{chat}", len(context))


def ends(job: Job, rank: int) -> tuple[str, str]:
    """Whom a rank sends to; the last one sends to the first."""
    names = [device.name for device in job.ring]
    return names[rank], names[(rank + 1) % len(names)]


def message_bytes(job: Job, rank: int, token: int) -> float:
    """Of what a rank sends for a token."""
    if rank == len(job.ring) - 1:
        return SHOUT_BYTES
    return job.model.activation_bytes * (job.workload.prompt_tokens if token == 0 else 1)


def delay_s(job: Job, draws: Draws, rank: int, chat: int) -> Floats:
    """Delays of a rank's messages for a chat, shape (tokens, rows)."""
    return draws.delay_s(job.cluster.path(*ends(job, rank)), f"pass{chat}", job.workload.output_tokens)


def token_times_s(job: Job, draws: Draws) -> Floats:
    """A token is with the client when the first device has heard it; a chat begins when the one before has ended."""
    gaps_s = np.concatenate([_gaps_s(job, draws, chat) for chat in range(job.workload.concurrency)])
    times_s: Floats = np.cumsum(gaps_s, axis=0)
    return times_s.reshape(job.workload.concurrency, job.workload.output_tokens, draws.rows)


def _gaps_s(job: Job, draws: Draws, chat: int) -> Floats:
    total = np.zeros((job.workload.output_tokens, draws.rows))
    for rank in range(len(job.ring)):
        total += stage_s(job, draws, rank, chat)
        if len(job.ring) > 1:
            sizes = np.array([message_bytes(job, rank, token) for token in range(len(total))])
            per_byte = draws.seconds_per_byte(job.cluster.path(*ends(job, rank)))
            total += delay_s(job, draws, rank, chat) + sizes[:, None] * per_byte
    return total


def is_recursion_exact(job: Job) -> bool:
    """Nobody waits for anything but what is handed over, unless a radio dozes."""
    return not any(device.link.power_save for device in job.ring)


def chats(job: Job) -> tuple[int, ...]:
    """Each chat is a stream of its own."""
    return (1,) * job.workload.concurrency


def brigade(
    env: simpy.Environment, job: Job, draws: Draws, recorder: Recorder, chat: int = 0
) -> Generator[Any, Any, None]:
    """The story of one chat."""
    network, cause = Network(env, draws, recorder), -1
    hops = [network.hop(*ends(job, rank)) for rank in range(len(job.ring))]
    work = [stage_s(job, draws, rank, chat)[:, 0] for rank in range(len(job.ring))]
    delays = [delay_s(job, draws, rank, chat)[:, 0] for rank in range(len(job.ring))]
    for token in range(job.workload.output_tokens):
        for rank, device in enumerate(job.ring):
            start_s = env.now
            yield env.timeout(float(work[rank][token]))
            cause = recorder.span("compute", device.name, token, start_s, env.now, cause)
            if len(job.ring) > 1:
                hops[rank].send(message_bytes(job, rank, token), float(delays[rank][token]), cause, token)
                cause = yield hops[rank].receive()
        recorder.token(chat, token, env.now, cause)


def serve(
    env: simpy.Environment, job: Job, draws: Draws, recorder: Recorder, arrivals_s: Sequence[float]
) -> Any:
    """One chat after the other: the brigade is asked anew when it has answered."""

    def queue() -> Generator[Any, Any, None]:
        for chat, arrival_s in enumerate(arrivals_s):
            yield env.timeout(max(0.0, arrival_s - env.now))
            yield env.process(brigade(env, job, draws, recorder, chat))

    return env.process(queue())


def start(env: simpy.Environment, job: Job, draws: Draws, recorder: Recorder) -> Any:
    """All chats of row 0 have come."""
    return serve(env, job, draws, recorder, [0.0] * job.workload.concurrency)


def mean_costs(costs: MeanCosts, *, prompt: bool) -> RingCosts:
    """Stages and hops one after the other."""
    tokens = costs.workload.prompt_tokens if prompt else 1
    size, part = tokens * costs.model.activation_bytes, "prefill" if prompt else "decode"

    def layer_s(device: Device) -> float:
        if prompt:
            return prefill_s(device, costs.model.average(1), tokens)
        return float(decode_s(device, costs.model.average(1), costs.context))

    return costs.ring(
        layer_s=costs.per_device(layer_s, part),
        each_s=costs.per_device(costs.host_s, ""),
        last_s=costs.per_device(lambda device: head_s(device, costs.model), part),
        walk_s=costs.per_pair(lambda a, b: costs.hop_s(a, b, size)),
        close_s=costs.per_pair(lambda a, b: costs.hop_s(a, b, SHOUT_BYTES)),
    )


def one_each(request: PlacementRequest) -> Placement:
    """The toy's own rule: one layer each, the rest to the last."""
    names = [device.name for device in request.ring()]
    counts = [1] * (len(names) - 1)
    layers = [*counts, request.n_layers - sum(counts)]
    return Placement.from_layers(list(zip(names, layers, strict=True)), "toy", devices=names)


FACTS = EngineFacts(
    name="toy",
    title="a bucket brigade",
    runtime="llama.cpp",
    runs_on=("apple-metal", "x86-cpu"),
    note="it is a toy",
    default_format="GGUF",
    activation_bytes_per_value=2,
    placement="toy",
    step_overhead_s=1e-3,
    hop_overhead_s=1e-4,
    overhead_log_sd=0.1,
    memory_overhead_bytes=1e6,
    source="made up",
    confidence="assumed",
)
RECOVERY = RecoveryFacts(
    client_may_split=True,
    files="everywhere",
    file_cache="mapped",
    loads="parallel",
    warm_up_tokens=0,
    load_log_sd=0.1,
    laws={"rejoin": SourcedLaw(law=Constant(value="1 s"), source="made up", confidence="assumed")},
)
ENGINE = Engine(
    facts=FACTS,
    token_times_s=token_times_s,
    is_recursion_exact=is_recursion_exact,
    start=start,
    chats=chats,
    embedding_on="first",
    head_on="last",
    own_rules={"toy": Rule(one_each)},
    mean_costs=mean_costs,
    recovery=RECOVERY,
    serve=serve,
    decodes_in_step=False,
)
BARE = Engine(
    facts=FACTS.model_copy(update={"name": "bare", "placement": "even"}),
    token_times_s=token_times_s,
    is_recursion_exact=is_recursion_exact,
    start=start,
    chats=chats,
    embedding_on="first",
    head_on="last",
)
"""The same without what an engine may leave out."""
