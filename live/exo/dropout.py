"""Dropout on an EXO cluster: one reply, a device taken away in the middle of it, and what each
phase of the recovery took.

Who takes it away is the user: by a command of theirs, or by hand when asked. When exactly it
goes cannot be known from here, so the fault is taken to be at the last token that came:
`detect` then holds the time from that token until the client knew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from live.errors import LiveError
from live.exo.client import Timeouts
from live.exo.match import match_devices
from live.measure import MeasureOptions, connect, measure_exo
from live.recovery import ObservedRecovery
from live.removal import DeviceRemoval, require_device
from live.steady import tokens_per_s
from simulator.result.measurement import read_measurement
from simulator.scenario import Scenario

__all__ = ["ExoDropped", "exo_dropout"]


@dataclass(frozen=True, slots=True)
class ExoDropped:
    """A reply that lost a device, and everything that was mended."""

    path: Path
    times_ns: tuple[int, ...]
    """Of each token, from the request on."""
    recoveries: tuple[ObservedRecovery, ...]
    warnings: tuple[str, ...]

    @property
    def tokens(self) -> range:
        """Numbers of the tokens; EXO tells no ids."""
        return range(len(self.times_ns))

    @property
    def before(self) -> float | None:
        """Tokens/s up to the first loss."""
        return tokens_per_s(self.times_ns[: self.recoveries[0].token])

    @property
    def after(self) -> float | None:
        """Tokens/s after the last recovery."""
        return tokens_per_s(self.times_ns[self.recoveries[-1].token :])


def exo_dropout(
    scenario: Scenario,
    cluster_urls: Sequence[str],
    device: str,
    at_token: int,
    out: str | Path,
    *,
    command: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    options: MeasureOptions | None = None,
    transport: httpx.BaseTransport | None = None,
    timeouts: Timeouts | None = None,
) -> ExoDropped:
    """Place the scenario's model, make one reply, and have `device` taken away when it has `at_token` tokens.

    With `command` that line is run in a shell, else `say` asks for the device to be taken
    away by hand. The Measurement at `out` holds a `phase` line for each phase of the
    recovery. Raises LiveError where the reply could not be mended, where nothing broke, and
    for a device or token that makes no sense; what `measure_exo` raises besides.
    """
    require_device(scenario, device, at_token)
    chosen = options or MeasureOptions()
    _check_cluster(cluster_urls, device, chosen, transport, timeouts)
    plug = DeviceRemoval(device, at_token, command, say)
    # one reply, for a device can be taken away once
    work = scenario.workload.model_copy(update={"runs": 1, "concurrency": 1})
    done = measure_exo(
        scenario.model_copy(update={"workload": work}),
        cluster_urls,
        out,
        plug.watching(chosen),
        transport=transport,
        timeouts=timeouts,
    )
    if done.failures:
        raise LiveError(f"{done.failures[0]}; what came is in {done.path}")
    found = read_measurement(out)
    # nothing broke means that the figures show nothing, so it is an error and not a result
    if not done.recoveries:
        held = ", ".join(shard.device for shard in found.provenance.placement)
        raise LiveError(
            f"nothing broke: the whole reply came ({'; '.join(plug.told())}). Layers were on {held}. Raise "
            f"workload.output_tokens for more time, and see that {device} really goes; the reply is in {out}"
        )
    times_ns = tuple(event["t_ns"] for event in found.of("token"))
    return ExoDropped(done.path, times_ns, done.recoveries, done.warnings)


def _check_cluster(
    urls: Sequence[str],
    device: str,
    options: MeasureOptions,
    transport: httpx.BaseTransport | None,
    timeouts: Timeouts | None,
) -> None:
    """The device is there, and is not the only one that we could talk to."""
    client, state = connect(urls, transport, timeouts)
    node_id = match_devices([device], state.nodes, options.device_map)[device]
    # whoever is asked about the loss must survive it
    if node_id == client.node_id() and len(urls) == 1:
        raise LiveError(
            f"{device} is the node at {client.base_url}, the only address given: without it nobody would be "
            "left to "
            "ask; give the address of another device first, and this one after a comma if at all"
        )
