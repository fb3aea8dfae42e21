"""Recovery: how long its phases take between the loss of a device and the next token.

detect     the client sees a closed connection or runs into its own inter-token time-out, or the engine ends
           the stream
decide     it asks who answers, waits until the engine can place again, and asks for a placement of the
           survivors
wait       nobody can hold the model: until somebody comes
release    the old shards are given up
start      processes start and connect
load       every survivor reads its shard: all at once, or one after the other through the client; the
           slowest counts
warm up    the engine's own first generation
prefill    prompt and all tokens so far are read again, and the next token comes out of it
resume     what a request takes besides, until that token is with the client: the reply goes on
"""

from __future__ import annotations

from dataclasses import dataclass, field

from simulator.churn.membership import Departure, Membership
from simulator.churn.pace import Conditions, EpochPaces
from simulator.churn.placing import Placed
from simulator.churn.rng import ChurnRng
from simulator.churn.spec import RecoverySpec
from simulator.cluster.cluster import Device
from simulator.engine.facts import RecoveryFacts

__all__ = ["PHASES", "PhaseDurations", "RunningPlacement"]

PHASES = ("detect", "decide", "wait", "release", "start", "load", "warm up", "prefill", "resume")
COPIES = 2  # a warm load reads each byte from the file cache and writes it once


@dataclass(frozen=True, slots=True)
class RunningPlacement:
    """A placement that runs; `starts` are the start numbers of its devices."""

    placed: Placed
    starts: dict[str, int]

    def intact(self, members: Membership) -> bool:
        """Whether every device of it is there and has not restarted since."""
        return all(members.same_start(name, start) for name, start in self.starts.items())

    def lost(self, members: Membership) -> dict[str, Departure]:
        """The departures that broke it, as far as those devices are still away."""
        return {name: members.departures[name] for name in self.starts if name in members.departures}


@dataclass
class PhaseDurations:
    """The durations of one replication's phases (s)."""

    facts: RecoveryFacts
    client: RecoverySpec
    paces: EpochPaces
    rng: ChurnRng
    first: str
    """The device that joined first: EXO's master."""
    _on_disk: dict[str, set[int]] = field(default_factory=dict)
    _cached: dict[tuple[str, int], range] = field(default_factory=dict)
    """Layers that a device has read since it started."""
    _fed: list[tuple[str, float, float]] = field(default_factory=list)
    """The servers of the load under way in turn: name, how long each takes (s), seconds per byte."""
    _before_s: float = 0.0
    """What that load takes before the first of them."""
    _busy_until_s: float = 0.0
    """Until when a server takes in what a load that broke off has left on the way."""

    def notice_s(
        self, name: str, departure: Departure, last_heard_s: float, mean_gap_s: float | None
    ) -> float:
        """When the loss of a device is noticed:
        `min(last token + client's time-out, fault + engine's own law)`.

        Before the first token the client has no rate to go by and waits as long as it ever does. An engine
        whose master is lost tells nobody. Where the client asks the engine's state, it believes in a loss
        only when the device has not reported for `probe` and one report more.
        """
        if mean_gap_s is None:
            at_s = departure.time_s + self.client.time_out_most
        else:
            at_s = last_heard_s + self.client.time_out_s(mean_gap_s)
        reports = self.facts.law("reports_every")
        if reports is not None:
            at_s = max(at_s, departure.time_s + self.client.probe + self.rng.draw("report", reports))
        own = self.facts.law(f"engine_notices_{'silent' if departure.silent else 'killed'}")
        if own is not None and not (name == self.first and self.facts.law("placeable_after_first")):
            at_s = min(at_s, departure.time_s + self.rng.draw("detect", own))
        # a time-out that was already running must not notice a fault before it happens
        return max(at_s, departure.time_s)

    def decide_s(self, now_s: float, lost: dict[str, Departure]) -> float:
        """From noticing to a placement that the engine accepts."""
        asks_devices = self.facts.law("reports_every") is None
        probe_s = (
            self.client.probe
            if asks_devices and any(departure.silent for departure in lost.values())
            else 0.0
        )
        ready_s = now_s
        for name, departure in lost.items():
            law = self.facts.law("placeable_after_first") if name == self.first else None
            law = law or self.facts.law("placeable_after")
            if law is not None:
                ready_s = max(ready_s, departure.time_s + self.rng.draw("placeable", law))
        heard_s = self.rng.draw("reports", self.facts.delay("reports_every"))  # every survivor once more
        waits_s = max(probe_s, heard_s, ready_s - now_s, self._busy_until_s - now_s)
        return waits_s + self.rng.draw("decide", self.facts.delay("decide"))

    def release_s(self) -> float:
        """Until the old shards' memory is free."""
        return self.rng.draw("release", self.facts.delay("release"))

    def start_s(self, placed: Placed) -> float:
        """Until the new processes run and are connected."""
        return sum(self.rng.draw(name, self.facts.delay(name)) for name in ("start", "connect")) * self._slow(
            placed
        )

    def _slow(self, placed: Placed) -> float:
        """How much slower than in the recordings the client does what it does alone, where
        it is a device of the ring.
        """
        return 1 / (1 - placed.job.ring[0].background_load) if self.facts.loads == "through_client" else 1.0

    def load_s(self, running: RunningPlacement, row: int) -> float:
        """Until every device has its shard: `fixed + max over devices`, or their sum
        where one client feeds all.
        """
        placed, files = running.placed, self.client.files or self.facts.files
        sizes = {
            use.device: use.weights_bytes + use.embedding_bytes + use.head_bytes for use in placed.memory
        }
        each, self._fed = [], []
        waits_s = self._round_trips_s("load", self.facts.load_round_trips, placed, row)
        for device in placed.job.ring:
            start = running.starts[device.name]
            # the client reads its own shard from its own disk
            if files == "client" and device is not placed.job.ring[0]:
                path = placed.job.cluster.path(placed.devices[0], device.name)
                byte_s = float(self.paces.links(placed, row).seconds_per_byte(path)[0])
                own_s, log_sd = sizes[device.name] * byte_s, self.facts.fed_log_sd
                self._fed.append((device.name, own_s + waits_s.get(device.name, 0.0), byte_s))
            else:
                own_s = self._read_s(device, placed, sizes[device.name], start, files)
                log_sd = self.facts.load_log_sd
            each.append(own_s * self.rng.factor(f"load/{device.name}", log_sd))
        through_client = files == "client" and self.facts.loads == "through_client"
        # before the first byte of weights: files are opened, buffers asked for
        self._before_s = fixed_s = self._fixed_s("load", placed)
        return fixed_s + sum(waits_s.values()) + (sum(each) if through_client else max(each))

    def broken_off(self, now_s: float, after_s: float, members: Membership) -> None:
        """A load ends after `after_s`: what was on the way to the server in turn arrives all the same."""
        after_s -= self._before_s
        for name, spent_s, byte_s in self._fed:
            if after_s < spent_s:
                left_s = min(self.facts.left_under_way_bytes * byte_s, spent_s - after_s)
                self._busy_until_s = now_s + (left_s if name in members.ready() else 0.0)
                return
            after_s -= spent_s

    def _fixed_s(self, phase: str, placed: Placed) -> float:
        """What a phase takes whatever its bytes: once, and for each server that the client speaks to."""
        name, servers = phase.replace(" ", "_"), len(placed.devices) - 1
        once_s = self.rng.draw(phase, self.facts.delay(f"{name}_fixed"))
        each_s = self.rng.draw(f"{phase} per server", self.facts.delay(f"{name}_per_server"))
        return (once_s + servers * each_s) * self._slow(placed)

    def _round_trips_s(self, slot: str, count: int, placed: Placed, row: int) -> dict[str, float]:
        """`count` questions to each server in turn, each answered before the next."""
        client, *servers = placed.devices
        if not count:
            return {}
        cluster, links = placed.job.cluster, self.paces.links(placed, row)
        return {
            server: sum(
                float(links.delay_s(cluster.path(*ends), f"{slot}/{server}", count)[:, 0].sum())
                for ends in ((client, server), (server, client))
            )
            for server in servers
        }

    def first_prompt_s(self, placed: Placed, row: int) -> float:
        """What the first prompt after a load takes beyond later ones: buffers are reserved on each server."""
        waits_s = self._round_trips_s("first prompt", self.facts.first_prompt_round_trips, placed, row)
        return sum(waits_s.values()) + self._fixed_s("first prompt", placed)

    def loaded(self, running: RunningPlacement) -> None:
        """Remember what each device has read: it is on its disk and in its file cache now."""
        for name, start in running.starts.items():
            layers = running.placed.layers(name)
            self._on_disk.setdefault(name, set()).update(layers)
            self._cached[name, start] = layers
        if self.facts.loads == "through_client":
            # who feeds all others has read the whole file for it
            client = running.placed.devices[0]
            self._cached[client, running.starts[client]] = range(running.placed.job.model.layers)

    def _read_s(self, device: Device, placed: Placed, size_bytes: float, start: int, files: str) -> float:
        """Seconds to read one shard: what is still cached from memory, what is missing over the
        network, the rest from disk.
        """
        layers, layer_bytes = placed.layers(device.name), placed.job.model.layer_bytes
        cached = self._cached.get((device.name, start), range(0))
        kept = len(set(layers) & set(cached))
        # a copy competes with the file cache for memory; a mapped file is its own cache
        room = device.memory_bytes - size_bytes if self.facts.file_cache == "copied" else device.memory_bytes
        # of a file that is longer than the room some part is there, and nobody says which
        there = min(1.0, max(0.0, room) / max(len(cached) * layer_bytes, 1.0))
        # embedding and head are no layers, and whoever has read of the file since its start has read them
        beside_bytes = size_bytes - len(layers) * layer_bytes if cached else 0.0
        warm_bytes = (kept * layer_bytes + beside_bytes) * there
        missing = len(set(layers) - self._on_disk.get(device.name, set())) if files == "own_shard" else 0
        missing_bytes = min(missing * layer_bytes, size_bytes - warm_bytes)
        line = min(self.client.download or device.link.rate_bytes_per_s, device.link.rate_bytes_per_s)
        cold_bytes = max(0.0, size_bytes - warm_bytes - missing_bytes)
        return (
            warm_bytes * COPIES / device.speed.decode_bandwidth
            + cold_bytes / device.disk_bytes_per_s
            + missing_bytes / line
        )

    def warm_up_s(self, placed: Placed, conditions: Conditions, row: int) -> float:
        """The engine's own first generation, computed like any other, and what it takes besides."""
        tokens = self.facts.warm_up_tokens
        generation_s = self.paces.generate_s(placed, conditions, tokens, row) if tokens else 0.0
        return generation_s + self.rng.draw("warm up", self.facts.delay("warm_up_fixed"))

    def resume_s(self) -> float:
        """What a request takes besides reading the prompt."""
        return self.rng.draw("resume", self.facts.delay("resume"))
