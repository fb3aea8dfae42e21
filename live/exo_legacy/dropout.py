"""Dropout on a legacy EXO cluster (0.0.x), watched: it mends nothing, so a loss costs the whole reply.

What can be seen from outside is when tokens stop, when the topology tells who left, and how long the next
request takes, for which the survivors divide the layers anew. When exactly the device goes cannot be known
from here, so the fault is taken to be at the last token that came.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

import httpx

from live.errors import BrokenReply, LiveError
from live.exo.chat import Timeouts
from live.exo_legacy.client import LegacyClient, LegacyTopology
from live.exo_legacy.measure import LegacyRuns, measure_legacy
from live.measure import MeasureOptions
from live.recovery import ObservedRecovery
from live.removal import DeviceRemoval, require_device
from live.reply import StreamedReply
from live.steady import tokens_per_s
from simulator.engine.legacy.placement import partition
from simulator.errors import PlacementError
from simulator.result.measurement import MeasurementWriter, read_measurement
from simulator.scenario import Scenario

__all__ = ["LegacyDropped", "legacy_dropout"]

LEAVES_S = 60.0  # three times the longest that was recorded (19.5 s, recovery.yaml)
LOST_RUN, NEXT_RUN = 0, 1


@dataclass(frozen=True, slots=True)
class LegacyDropped:
    """A reply that was lost with a device, and the next one, by the survivors."""

    path: Path
    tokens: range
    """Numbers of the tokens that came before the loss; a new reply begins anew."""
    recoveries: tuple[ObservedRecovery, ...]
    warnings: tuple[str, ...]
    before: float | None
    """Tokens/s until the loss."""
    next: float | None
    """Tokens/s of the next reply; None where it did not come to two tokens."""
    after: None = None
    is_mended: ClassVar[bool] = False


def legacy_dropout(
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
) -> LegacyDropped:
    """Make one reply, have `device` taken away when it has `at_token` tokens, watch the cluster, ask again.

    With `command` that line is run in a shell, else `say` asks for the device to be taken away by hand.
    Raises LiveError where nothing broke, where the survivors do not answer, and for a device or token that
    makes no sense; what `measure_legacy` raises besides.
    """
    require_device(scenario, device, at_token)
    chosen, plug = options or MeasureOptions(), DeviceRemoval(device, at_token, command, say)
    watch = _Watch(device, cluster_urls, transport, timeouts or Timeouts(), say)
    done = measure_legacy(
        # one reply, for a device can be taken away once
        scenario.model_copy(update={"workload": scenario.workload.model_copy(update={"runs": 1})}),
        cluster_urls,
        out,
        plug.watching(chosen),
        transport=transport,
        timeouts=timeouts,
        on_loss=watch,
    )
    if not done.failures:
        raise LiveError(
            f"nothing broke: the whole reply came ({'; '.join(plug.told())}). Raise workload.output_tokens "
            f"for more time, and see that {device} really goes; the reply is in {out}"
        )
    if watch.fault:
        raise LiveError(f"{done.failures[0]}; {watch.fault}; what came is in {done.path}")
    times = read_measurement(out).token_times_s()
    before, after = (
        tokens_per_s([1e9 * at_s for at_s in times.get((run, 0), ())]) for run in (LOST_RUN, NEXT_RUN)
    )
    count = len(times[LOST_RUN, 0])
    return LegacyDropped(done.path, range(count), (watch.recovery,), done.warnings, before, after)


@dataclass
class _Watch:
    """What becomes of the cluster after a loss; `fault` says why there was no next reply."""

    device: str
    urls: Sequence[str]
    transport: httpx.BaseTransport | None
    timeouts: Timeouts
    say: Callable[[str], None]
    recovery: ObservedRecovery = field(default_factory=partial(ObservedRecovery, 0, 0))
    fault: str = ""

    def __call__(self, runs: LegacyRuns, writer: MeasurementWriter, error: BrokenReply) -> None:
        reply = error.reply
        # times of tokens are from the request on
        last_ns = reply.sent_ns + (reply.tokens[-1].t_ns if reply.tokens else 0)
        self.recovery = ObservedRecovery(len(reply.tokens), last_ns, (self.device,))
        self.recovery.end("detect")
        try:
            self._go_on(runs, writer)
        except (LiveError, PlacementError) as wrong:
            self.fault = str(wrong)
            writer.warn(self.fault)
        for line in self.recovery.lines(reply.sent_ns):
            # the next reply's layers are not those of the header, so its run is marked as well
            run = LOST_RUN if line["phase"] in ("detect", "decide") else NEXT_RUN
            writer.write("phase", run=run, chat=0, **line, token=len(reply.tokens))

    def _go_on(self, runs: LegacyRuns, writer: MeasurementWriter) -> None:
        """Wait until the survivors have closed their ring, then ask them anew."""
        client, left = self._closed(set(runs.node_of.values()), runs.node_of[self.device])
        layers = runs.scenario.model.layers or 0
        split = partition({node.node_id: node.memory_mib for node in left.nodes}, layers).placement()
        name_of = {node: name for name, node in runs.node_of.items()}
        self.recovery.layers = {name_of[shard.device]: shard.layers for shard in split.shards}
        self.recovery.end("decide")
        told = ", ".join(f"{count} on {name}" for name, count in self.recovery.layers.items())
        self.say(f"{self.device} has left; asking again, of {told}")
        runs.client = client
        reply = runs.run(writer, NEXT_RUN)
        self._note(reply)

    def _note(self, reply: StreamedReply) -> None:
        """The phases of the next reply: it is answered when the layers are loaded."""
        if not reply.tokens:
            raise LiveError("the survivors answered no token")
        self.recovery.end("load", reply.sent_ns + (reply.headers_ns or 0))
        self.recovery.end("resume", reply.sent_ns + reply.tokens[0].t_ns)

    def _closed(self, before: set[str], lost: str) -> tuple[LegacyClient, LegacyTopology]:
        """A client of a survivor, and its topology without the lost node; raises LiveError where it stays."""
        end_s, seen = time.monotonic() + LEAVES_S, "nobody answers any more"
        while time.monotonic() < end_s:
            for url in self.urls:
                client = LegacyClient(url, self.transport, self.timeouts)
                with suppress(LiveError):
                    topology = client.topology()
                    here = {node.node_id for node in topology.nodes}
                    # who listens alone is cut off himself, or has not met the others again
                    if lost not in here and here >= before - {lost}:
                        return client, topology
                    seen = f"the topology has {', '.join(sorted(here))}"
            time.sleep(self.timeouts.report_s)
        raise LiveError(
            f"{self.device} was to leave, and {LEAVES_S:.0f} s later {seen}; see that it really went, and "
            "give --cluster the address of another device"
        )
