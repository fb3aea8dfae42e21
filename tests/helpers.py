"""Jobs built by hand, and what tests do with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import simpy
from hypothesis import strategies as st

from simulator.cluster.cluster import AccessPoint, Cluster, Device, Link, PowerSave, Wire
from simulator.engine.base import engine
from simulator.laws import Constant, Exponential, Gamma, Law, Lognormal, Mixture, Part, Weibull
from simulator.laws.law import Floats
from simulator.model.model import Model
from simulator.placement.shard import Placement
from simulator.runtime.collective import Algorithm
from simulator.runtime.draws import Draws
from simulator.runtime.job import EngineCosts, Job
from simulator.runtime.network import Hop
from simulator.runtime.record import Recorder
from simulator.scenario import NoiseSpec, SpeedSpec, WorkloadSpec

SMALL = Model("small", 24, 512, 12e6, 12e6, 0, 0, 0.0, 8e6, 8e6, 4096.0, 2.5e7, 1.6e7, 2048.0)
"""24 layers of 12 MB that move 12 GB/s: one millisecond a layer."""
EXPERTS = replace(
    SMALL, name="experts", active_layer_bytes=4e6, experts=8, experts_per_token=2, expert_layer_bytes=10e6
)
SPEED = SpeedSpec(decode_bandwidth="12 GB/s", prefill_flops="1000 TFLOPS", context_cost=0.0)
INSTANT = 1e30  # bytes/s at which a message takes no time


def link(delay: Law | float = 0.0, rate: float = INSTANT, via: str = "lan", **changes: Any) -> Link:
    """A link that is wired and certain unless `changes` says otherwise."""
    law = Constant(value=f"{delay!r} s") if isinstance(delay, int | float) else delay
    return replace(Link("test", via, law, rate, False, 0.0, 0.0, 0.0, None, "assumed"), **changes)


def device(name: str, **changes: Any) -> Device:
    """A device without noise on a perfect link."""
    plain = Device(name, "test", "unknown", 64e9, 60e9, SPEED, NoiseSpec(sigma=0.0), 1e9, 0.0, False, link())
    return replace(plain, **changes)


def job(
    devices: Sequence[Device],
    engine_name: str = "exo",
    *,
    layers: Sequence[int] | None = None,
    model: Model = SMALL,
    points: Iterable[AccessPoint] = (AccessPoint("lan", 0.0),),
    wires: Iterable[Wire] = (),
    step_overhead_s: float = 0.0,
    hop_overhead_s: float = 0.0,
    overhead_log_sd: float = 0.0,
    seed: int = 1,
    common_noise: NoiseSpec = NoiseSpec(sigma=0.0),
    algorithm: Algorithm = "ring",
    **workload: Any,
) -> Job:
    """A job on these devices in ring order; layers are shared out evenly unless given."""
    count, size = len(devices), model.layers
    shares = layers or [size // count + (i < size % count) for i in range(count)]
    placement = Placement.from_layers([(d.name, n) for d, n in zip(devices, shares, strict=True)], "manual")
    flow = engine(engine_name)
    if flow.splits_layers:
        placement = Placement.split([d.name for d in devices], size, "manual")
    ends = (flow.embedding_on, flow.head_on)
    costs = EngineCosts(
        engine_name, step_overhead_s, hop_overhead_s, overhead_log_sd, 0.0, *ends, algorithm=algorithm
    )
    asked = WorkloadSpec(**({"prompt_tokens": 8, "output_tokens": 12, "runs": 1} | workload))
    return Job(
        Cluster(tuple(devices), tuple(points), tuple(wires)),
        model,
        placement,
        costs,
        asked,
        seed,
        common_noise,
    )


def ring(count: int, delay_s: Law | float = 0.0, engine_name: str = "exo", **changes: Any) -> Job:
    """`count` equal devices; each hop takes `delay_s`, half of it on each side."""
    side = delay_s / 2 if isinstance(delay_s, int | float) else delay_s
    return job([device(f"d{i}", link=link(side)) for i in range(count)], engine_name, **changes)


def by_recursion(a_job: Job, rows: int = 1, first: int = 0) -> Floats:
    """Token times of the vectorised evaluator, shape (streams, tokens, rows)."""
    return engine(a_job.engine.name).token_times_s(a_job, Draws(a_job, first, rows))


def simulate(a_job: Job, row: int = 0, *, spans: bool = False) -> Recorder:
    """One row by SimPy."""
    env, recorder = simpy.Environment(), Recorder(keep_spans=spans)
    engine(a_job.engine.name).start(env, a_job, Draws(a_job, row, 1), recorder)
    env.run()
    return recorder


def by_simpy(a_job: Job, row: int = 0) -> Floats:
    """Token times of SimPy, shape (streams, tokens)."""
    found = simulate(a_job, row).tokens
    times = np.full((len({token[0] for token in found}), a_job.workload.output_tokens), np.nan)
    for stream, token, time_s, _ in found:
        times[stream, token] = time_s
    return times


def inter_token_s(a_job: Job) -> float:
    """The steady inter-token time of a job with constant laws: the gap between its last two tokens."""
    times = by_simpy(a_job)
    return float(times[0, -1] - times[0, -2])


class SentMessages:
    """Counts the messages that really leave a port, by their size; use with pytest's monkeypatch."""

    def __init__(self, monkeypatch: Any) -> None:
        self.by_bytes: Counter[float] = Counter()
        send = Hop.send

        def counted(hop: Hop, size_bytes: float, *rest: Any) -> None:
            self.by_bytes[size_bytes] += 1
            send(hop, size_bytes, *rest)

        monkeypatch.setattr(Hop, "send", counted)


def agrees(samples: Floats, theory: float) -> None:
    """The mean of independent samples is within 4 standard errors of `theory`, and the error is under 2 %."""
    mean, error = float(np.mean(samples)), float(np.std(samples, ddof=1) / np.sqrt(np.size(samples)))
    assert error < 0.02 * abs(theory), f"too few samples: standard error {error:.3g} of {theory:.6g}"
    assert abs(mean - theory) < 4 * error, f"mean {mean:.6g}, theory {theory:.6g}, standard error {error:.3g}"


SIMPLE_LAWS: tuple[Law, ...] = (
    Constant(value="3 ms"),
    Exponential(mean="4 ms", shift="1 ms"),
    Lognormal(median="2 ms", sigma=0.8),
    Gamma(mean="5 ms", shape=2.5),
    Weibull(scale="2 ms", shape=0.7, shift="0.5 ms"),
)
WIFI = Mixture(
    parts=(
        Part(weight=0.9, of=Lognormal(median="2 ms", sigma=0.5)),
        Part(weight=0.1, of=Gamma(mean="50 ms", shape=3.0)),
    )
)


noises = st.builds(
    NoiseSpec,
    sigma=st.sampled_from([0.0, 0.1]),
    correlation=st.sampled_from([0.0, 0.6]),
    run_sigma=st.sampled_from([0.0, 0.05]),
    session_sigma=st.sampled_from([0.0, 0.05]),
)


@st.composite
def links(draw: st.DrawFn, *, doze: bool = False) -> Link:
    """Any link; with `doze` some radios sleep."""
    sleepy = doze and draw(st.booleans())
    return Link(
        kind="test",
        via=draw(st.sampled_from(["home", "attic"])),
        delay=draw(st.sampled_from((*SIMPLE_LAWS, WIFI))),
        rate_bytes_per_s=draw(st.sampled_from([1e5, 5e6, 1e9])),
        shared=draw(st.booleans()),
        delay_log_sd=draw(st.sampled_from([0.0, 0.4])),
        rate_log_sd=draw(st.sampled_from([0.0, 0.3])),
        vpn_delay_s=draw(st.sampled_from([0.0, 0.002])),
        label="assumed",
        power_save=PowerSave(0.01, Exponential(mean="50 ms")) if sleepy else None,
    )


@st.composite
def devices(draw: st.DrawFn, name: str, *, doze: bool = False) -> Device:
    """Any device: noisy or not, busy with other things or not, with or without room for its shard."""
    speed = SpeedSpec(
        decode_bandwidth=f"{draw(st.floats(2, 200))!r} GB/s",
        prefill_flops=f"{draw(st.floats(0.01, 10))!r} TFLOPS",
        layer_overhead=draw(st.sampled_from(["0 s", "100 us"])),
        stage_overhead=draw(st.sampled_from(["0 s", "3 ms"])),
        batch_cost=draw(st.sampled_from([0.0, 0.5])),
        decode_spread=draw(st.sampled_from([0.0, 0.2])),
        prefill_spread=draw(st.sampled_from([0.0, 0.3])),
    )
    return Device(
        name,
        "test",
        "unknown",
        1e9,
        draw(st.sampled_from([5e7, 60e9])),
        speed,
        draw(noises),
        2e9,
        draw(st.sampled_from([0.0, 0.3])),
        True,
        draw(links(doze=doze)),
    )


@st.composite
def jobs(draw: st.DrawFn, engine_name: str, *, doze: bool = False, chats: int = 1, prompts: int = 40) -> Job:
    """Any job for that engine on 1 to 6 devices around two access points, some with a cable between them."""
    names = [f"d{i}" for i in range(draw(st.integers(1, 6)))]
    ends = [pair for pair in pairwise(names) if draw(st.integers(0, 3)) == 0]
    cables = [
        Wire(frozenset(pair), "cable", draw(st.sampled_from(SIMPLE_LAWS)), 1e8, 0.2, 0.1) for pair in ends
    ]
    return job(
        [draw(devices(name, doze=doze)) for name in names],
        engine_name,
        points=(AccessPoint("home", draw(st.sampled_from([0.0, 0.5]))), AccessPoint("attic", 0.0)),
        wires=cables,
        step_overhead_s=draw(st.sampled_from([0.0, 2e-3])),
        hop_overhead_s=draw(st.sampled_from([0.0, 1e-4])),
        overhead_log_sd=draw(st.sampled_from([0.0, 0.3])),
        seed=draw(st.integers(0, 2**40)),
        common_noise=draw(noises),
        model=draw(st.sampled_from([SMALL, EXPERTS])),
        prompt_tokens=draw(st.integers(1, prompts)),
        output_tokens=draw(st.integers(2, 9)),
        runs=draw(st.integers(1, 3)),
        concurrency=draw(st.integers(1, chats)),
    )
