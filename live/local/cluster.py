"""Cluster: the processes of one plan, from the first of them to the last control group removed.

    with RpcCluster(plan) as cluster:
        run = cluster.generate(prompt_tokens=64, output_tokens=128, seed=1)

Here is what is the same for every engine: a guard, a relay, groups, throttles, what is asked and watched.
An engine's own cluster says which processes there are and what each is told (`rpc`, `mlx.cluster`).
Weights travel before the links are shaped and before devices are slowed down; neither is what is measured.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from live.local.cgroup import TICK_S, Groups, make_groups, quota_share
from live.local.children import Child, Event
from live.local.guard import PERIOD_S
from live.local.plan import ClusterPlan
from live.local.shaping import LinkShape
from simulator.errors import LiveError

__all__ = ["LOAD_S", "SILENCE_S", "LocalCluster", "Run"]

LOAD_S = 300.0
SILENCE_S = 120.0  # longest wait for one token, a long prompt on a slow device included


@dataclass(frozen=True, slots=True)
class Run:
    """One chat as it was observed; times are `time.monotonic_ns`, seconds are lengths."""

    sent_ns: int
    token_ns: tuple[int, ...]
    flights: tuple[Event, ...]
    busy_s: dict[str, float]
    """CPU time of each device's process."""
    service_s: dict[str, float]
    """How long each device had work, as told from the links."""

    @property
    def wall_s(self) -> float:
        """From the request to the last token."""
        return (self.token_ns[-1] - self.sent_ns) / 1e9


class LocalCluster(ABC):
    """A running cluster; a context manager that leaves nothing behind."""

    _client: Child
    """The process of the first device, which tells the tokens."""

    def __init__(self, plan: ClusterPlan) -> None:
        self.plan = plan
        self.throttled_by: dict[str, str] = {}
        self.capped_by: dict[str, str] = {}
        self._children: list[Child] = []
        self._others: dict[str, Child] = {}
        """The processes of the other devices, where they are this machine's."""
        self._groups: dict[str, Groups] = {}
        self._guard: Child | None = None
        self._relay: Child | None = None

    @abstractmethod
    def _launch(self) -> None:
        """Start all processes, limited, loaded and linked, but neither slowed down nor shaped."""

    @property
    def is_local(self) -> bool:
        """Whether all devices are processes of this machine."""
        return True

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> None:
        # the first to live and the last to go, so that it knows every other process
        self._guard = Child("guard", "live.local.guard")
        self._launch()
        # real devices have their own speed; a client alone may be throttled as well
        if self.is_local:
            self._slow_down()
        if self._relay is not None:
            # only now: the weights would take hours over a slow link, and loading is not what is measured
            self._relay.ask("shape", "shaping", on=True)

    def _child(
        self,
        name: str,
        module: str,
        *arguments: str,
        command: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a child, see `Child`, and let the guard know of it."""
        return self._adopt(
            Child(name, f"live.local.{module}", *arguments, command=command, environment=environment)
        )

    def _adopt(self, child: Child) -> Child:
        self._children.append(child)
        # before anything else is done with it: a kill -9 of ours between the two would leave it running
        self._keep(pids=[child.pid])
        return child

    def _keep(self, pids: Sequence[int] = (), folders: Sequence[str] = ()) -> None:
        assert self._guard is not None
        self._guard.ask("keep", "noted", pids=list(pids), folders=list(folders))

    def _open_link(self, shape: LinkShape, port: int) -> int:
        """Open a link that leads to a port of this machine; returns the port at which it listens."""
        assert self._relay is not None
        full = shape.model_copy(update={"target": ("127.0.0.1", port)})
        opened: int = self._relay.ask("link", "port", shape=full.model_dump(mode="json"))["port"]
        return opened

    def _processes(self) -> dict[str, Child]:
        """The local process of each device."""
        return {self.plan.devices[0].name: self._client, **self._others}

    def _limit(self) -> None:
        """Put each device into groups of its own, and cap its memory where the
        scenario states what is usable.
        """
        for device in self.plan.devices:
            if device.name not in self._processes() or (
                device.share == 1 and device.memory_cap_bytes is None
            ):
                continue
            groups = self._groups[device.name] = make_groups(device.name)
            self._keep(folders=[str(folder) for folder in groups.folders])
            # before the model is loaded: memory that was taken earlier is not charged to the group
            groups.take(self._processes()[device.name].pid)
            if device.memory_cap_bytes is not None:
                permitted = groups.limit_memory(device.memory_cap_bytes)
                self.capped_by[device.name] = "cgroup" if permitted else "not permitted"

    def _slow_down(self) -> None:
        """Slow devices down to their share: by quota where permitted and precise, else
        by stopping and continuing.
        """
        for device in self.plan.devices:
            if device.share == 1:
                continue
            groups = self._groups[device.name]
            # stopping and continuing by signals keeps a processor busy itself: all other devices were 6 to
            # 8 % slower for it, so it is left for stages that are over before the kernel looks
            cores = quota_share(device.share, device.stage_s) * device.threads
            if device.stage_s >= TICK_S and groups.limit_cpu(cores):
                self.throttled_by[device.name] = "cgroup quota"
            else:
                assert self._guard is not None
                pid = self._processes()[device.name].pid
                self._guard.ask("slow", "noted", pid=pid, share=device.share)
                self.throttled_by[device.name] = f"stop and continue every {PERIOD_S * 1e3:g} ms"

    def watch(self) -> None:
        """Raise LiveError when a process of the cluster has ended."""
        for name, process in self._others.items():
            if process.has_ended():
                raise LiveError(
                    f"device {name}: its process {process.how_it_ended()}{self._why(name, process)}"
                )
        self.watch_relay()

    def watch_relay(self) -> None:
        """Raise LiveError when the relay has ended; what becomes of a server a client that
        mends finds out by itself.
        """
        if self._relay is not None and self._relay.has_ended():
            raise LiveError(f"the relay {self._relay.how_it_ended()}{self._relay.last_words()}")

    def _why(self, name: str, process: Child) -> str:
        cap = self.capped_by.get(name) == "cgroup"
        return "; is its memory cap (usable_memory) below its shard?" if cap else process.last_words()

    @property
    def pids(self) -> tuple[int, ...]:
        """Processes of the cluster."""
        return tuple(child.pid for child in self._children)

    def busy_ns(self) -> dict[str, int]:
        """CPU time that each process but the first device's has used so far (ns)."""
        return {name: int(other.ask("busy", "busy")["busy_ns"]) for name, other in self._others.items()}

    def ask_reply(
        self,
        prompt_tokens: int,
        output_tokens: int,
        seed: int,
        received: Sequence[int] = (),
        *,
        exact: bool = False,
    ) -> None:
        """Ask for a reply behind the tokens `received` so far; `exact` reads them one by one."""
        self._client.command(
            "generate",
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            seed=seed,
            received=list(received),
            exact=exact,
        )

    def next_event(self, timeout_s: float, waiting: Callable[[], None] = lambda: None) -> Event:
        """What the client says next; raises LiveError when it ends or says nothing for so long."""
        return self._client.next_event(timeout_s, waiting)

    def generate(self, prompt_tokens: int, output_tokens: int, seed: int) -> Run:
        """One chat; raises LiveError when it breaks."""
        before = self.begin_watch()
        self.ask_reply(prompt_tokens, output_tokens, seed)
        sent = self._client.wait_for("request", SILENCE_S, self.watch)
        tokens: list[int] = []
        while (event := self._client.next_event(SILENCE_S, self.watch))["event"] != "done":
            if event["event"] == "token" and not event.get("chat"):
                tokens.append(event["at_ns"])
        return self.end_watch(before, sent["sent_ns"], tuple(tokens), event["busy_ns"] - sent["busy_ns"])

    def begin_watch(self) -> dict[str, int]:
        """Forget older flights; the CPU time of each server so far, for `end_watch`."""
        self.flights()
        return self.busy_ns()

    def end_watch(
        self, before: dict[str, int], sent_ns: int, token_ns: tuple[int, ...], client_busy_ns: int
    ) -> Run:
        """The chat since `begin_watch`, with what was imposed on its messages and how busy everybody was."""
        flights, after = self.flights(), self.busy_ns()
        busy_s = {self._client.name: client_busy_ns / 1e9}
        busy_s |= {name: (after[name] - before[name]) / 1e9 for name in after}
        return Run(
            sent_ns,
            token_ns,
            tuple(flights),
            busy_s,
            self._service_s((token_ns[-1] - sent_ns) / 1e9, flights),
        )

    def flights(self) -> list[Event]:
        """What the relay has imposed since the last call."""
        if self._relay is None:
            return []
        return list(self._relay.ask("collect", "flights", timeout_s=60.0)["flights"])

    @abstractmethod
    def _service_s(self, wall_s: float, flights: list[Event]) -> dict[str, float]:
        """How long each device had work (s), empty where nobody can tell."""

    def stop(self) -> None:
        """Stop everything; safe to call twice."""
        # in the order opposite to the start: the client goes first, so that no server breaks under it
        for child in reversed(self._children):
            child.end()
        self._children.clear()
        if self._guard is not None:
            # without it the guard takes the closed pipe for our death, and kills what it knows
            self._guard.command("farewell")
            self._guard.end()
