"""Who else uses the cluster: told from a replica that is up to date, and watched while we measure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from datetime import datetime
from types import TracebackType
from typing import Self

from live.errors import ClusterBusy, LiveError
from live.exo.client import ExoClient
from live.exo.lease import came_first, lease_age_s, who
from live.exo.state import BusyTask, ClusterState, StateInstance

__all__ = ["Watch", "foreign", "look_current", "require_first"]

LOOK_S = 1.0  # between looks while measuring: a look at tasks costs the client some milliseconds
# a replica that catches up replays minutes in seconds; one that is up to date goes as time does
REPLAY_FACTOR, REPLAY_SLACK_S = 2.0, 2.0


def foreign(state: ClusterState, mine: Collection[str]) -> tuple[StateInstance, ...]:
    """The instances that are none of `mine`."""
    return tuple(one for key, one in state.instances.items() if key not in mine)


def look_current(client: ExoClient, state: ClusterState, within_s: float) -> ClusterState:
    """The state again, once the node asked is up to date with its cluster, `within_s` at most.

    A node that has just started replays what happened before it came: for seconds it shows instances that are
    long gone, as if they were in use. Then its reports (`lastSeen`) go faster than the clock.
    """
    end_s, before, before_s = time.monotonic() + within_s, state, time.monotonic()
    while True:
        time.sleep(max(client.pause_s, min(LOOK_S, 4 * client.timeouts.poll_s)))
        now, now_s = client.state(), time.monotonic()
        if _is_current(before, now, now_s - before_s) or now_s > end_s:
            return now
        before, before_s = now, now_s


def _is_current(before: ClusterState, now: ClusterState, elapsed_s: float) -> bool:
    first, last = _newest(before), _newest(now)
    if now.event_index <= before.event_index >= 0:
        return False
    if first is None or last is None:  # versions that tell no reports
        return True
    return (last - first).total_seconds() <= REPLAY_FACTOR * elapsed_s + REPLAY_SLACK_S


def _newest(state: ClusterState) -> datetime | None:
    return max((node.last_seen for node in state.nodes if node.last_seen), default=None)


def require_first(client: ExoClient, mine: str, known: Collection[str], say: Callable[[str], None]) -> None:
    """Look again after placing: raise ClusterBusy unless `mine` came before whatever else is not `known`.

    A `sim live run` that came after ours sees that too and gives way, which is waited for.
    """
    end_s = time.monotonic() + client.timeouts.appear_s
    while True:
        state = client.work()
        others = foreign(state, {mine, *known})
        earlier = [one for one in came_first(state, mine) if one in others]
        if not others:
            return
        yields = not earlier and all(lease_age_s(one.instance_id) is not None for one in others)
        if not yields or time.monotonic() > end_s:
            raise ClusterBusy(
                f"while ours was placed there came {', '.join(map(who, others))}; two at once would "
                "measure each other, so ours is deleted: wait until the other is done, or say --allow-busy"
            )
        say(f"waiting for another `sim live run` to give way: {', '.join(map(who, others))}")
        time.sleep(client.pause_s)


class Watch:
    """Looks at the cluster in the background while a run lasts: whose chats and instances are there.

    A chat shorter than the second between two looks may be missed.
    """

    def __init__(self, client: ExoClient, known: Collection[str]) -> None:
        self._client, self._known, self._unnamed = client, set(known), client.unnamed
        self._tasks: dict[str, BusyTask] = {}
        self._instances: dict[str, StateInstance] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(self._client.timeouts.answer_s)

    def _look_on(self) -> None:
        while True:
            try:
                state = self._client.work()
            except LiveError:
                pass  # whoever measures will notice
            else:
                self._tasks |= {task.task_id: task for task in state.busy_tasks}
                self._instances |= {one.instance_id: one for one in foreign(state, self._known)}
            # where only whole states are given, as rarely as their size wants
            if self._over.wait(LOOK_S if self._client.gives_parts else max(LOOK_S, self._client.pause_s)):
                return

    def told(self, mine: Collection[str]) -> tuple[str, ...]:
        """What others did meanwhile, in words; `mine` are our instances by now.

        A chat is known by its command's id, which the stream of our own ones tells; one of ours that broke
        before its first token told none.
        """
        strangers = [task for task in self._tasks.values() if task.command_id not in self._client.commands]
        on_ours = [task for task in strangers if task.instance_id in mine]
        # versions that tell no command's id, and those of ours that told none
        excused = [task for task in on_ours if not task.command_id]
        excused += on_ours[: self._client.unnamed - self._unnamed]
        told = [str(task) for task in strangers if task not in excused]
        return (*told, *(who(one) for key, one in self._instances.items() if key not in mine))
