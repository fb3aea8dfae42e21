"""Dropout on an EXO cluster: one reply, a device taken away in the middle of it, and what each
phase of the recovery took.

Who takes it away is the user: by a command of theirs, or by hand when asked. When exactly it
goes cannot be known from here, so the fault is taken to be at the last token that came:
`detect` then holds the time from that token until the client knew.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from live.errors import LiveError
from live.exo.client import Timeouts
from live.exo.match import match_devices
from live.measure import MeasureOptions, connect, measure_exo
from live.recovery import ObservedRecovery, require_inside
from live.steady import tokens_per_s
from simulator.errors import did_you_mean
from simulator.result.measurement import read_measurement
from simulator.scenario import Scenario

__all__ = ["ExoDropped", "exo_dropout"]

# an `ssh` to a device that is busy takes seconds; a command that never ends must not hold the watch
COMMAND_S = 60.0


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
    _check(scenario, device, at_token)
    chosen = options or MeasureOptions()
    _check_cluster(cluster_urls, device, chosen, transport, timeouts)
    plug = _DeviceRemoval(device, at_token, command, say)
    # one reply, for a device can be taken away once
    work = scenario.workload.model_copy(update={"runs": 1, "concurrency": 1})
    fault = {"device": device, "at_token": at_token, "how": command or "by hand, when asked"}
    done = measure_exo(
        scenario.model_copy(update={"workload": work}),
        cluster_urls,
        out,
        replace(
            chosen, say=say, on_token=plug.hear, extra={**chosen.extra, "fault": fault}, remarks=plug.told
        ),
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


def _check(scenario: Scenario, device: str, at_token: int) -> None:
    if device not in scenario.devices:
        hint = did_you_mean(device, list(scenario.devices))
        raise LiveError(
            f"no device {device!r} in the scenario{hint}; its devices are {', '.join(scenario.devices)}"
        )
    require_inside(at_token, scenario.workload.output_tokens)


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


@dataclass
class _DeviceRemoval:
    """Has the device taken away when the time has come, without holding up the tokens."""

    device: str
    at_token: int
    command: str | None
    say: Callable[[str], None]
    _asked_ns: int = 0
    _story: str = ""
    _thread: threading.Thread | None = field(default=None, repr=False)

    def hear(self, run: int, chat: int, token: int) -> None:
        """A token came."""
        if token + 1 != self.at_token:
            return
        self._asked_ns = time.monotonic_ns()
        if self.command is None:
            self.say(f"take {self.device} away now: pull its plug, or stop EXO on it; watching the reply")
            return
        self.say(f"token {self.at_token}: {self.command}")
        # in a thread: tokens that come while the command runs must be stamped in time
        self._thread = threading.Thread(target=self._run, args=(self.command,), daemon=True)
        self._thread.start()

    def _run(self, command: str) -> None:
        """Run the user's own command line, as their shell would."""
        try:
            done = subprocess.run(
                command,
                # the line is the user's own, with their pipes and variables
                shell=True,
                capture_output=True,
                text=True,
                timeout=COMMAND_S,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            end = f"did not end within {COMMAND_S:g} s and was killed"
        else:
            end = f"ended with exit code {done.returncode}"
            if done.returncode:
                end += f": {' '.join((done.stderr or done.stdout).split())[:300] or 'it says nothing'}"
        self._story = (
            f"`{command}` {end} {(time.monotonic_ns() - self._asked_ns) / 1e9:.2f} s after token "
            f"{self.at_token}"
        )
        self.say(self._story)

    def told(self) -> tuple[str, ...]:
        """What was done to the device, for the file."""
        if not self._asked_ns:
            return (f"the reply ended before token {self.at_token}, so nothing was done to {self.device}",)
        if self._thread is not None:
            self._thread.join(COMMAND_S)
        where = "the fault is taken to be at the last token before the silence"
        if self.command is None:
            return (
                f"{self.device} was to be taken away by hand at token {self.at_token}; {where}, so detect "
                "holds no time of the operator",
            )
        return (f"{self._story or f'`{self.command}` has not ended'}; {where}",)
