"""A Petals swarm that others have set up, measured by a client that reads and announces nothing.

The scenario says what stands behind it; which servers its chats really used is in the spans of the
Measurement, by the ends of their names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

from live.local.children import Event
from live.local.cluster import LOAD_S, LocalCluster
from live.local.petals.cluster import PREFIX, PetalsCluster
from live.local.petals.environment import PETALS
from live.local.petals.nursery import Nestling
from live.local.petals.plan import MOST_CHATS, PetalsPlan
from live.local.petals.weights import PetalsRecipe, model_file, recipes
from live.local.plan import device_plans, prepared_for
from simulator.errors import LiveError
from simulator.scenario import Scenario

__all__ = ["ForeignSwarm", "plan_foreign", "swarm_addresses"]

ADDRESS = re.compile(r"/(ip4|ip6|dns|dns4|dns6)/[^/]+/(tcp|udp)/\d+(/quic(-v1)?)?/p2p/\w+")
NAME_LETTERS = 6
"""Of the end of a peer's name, by which Petals itself tells servers apart."""
OPTIONS = ("model", "prefix")


def swarm_addresses(text: str) -> tuple[str, ...]:
    """The addresses and options of `petals://ADDRESS,...?model=FOLDER&prefix=NAME`; raises LiveError.

    >>> swarm_addresses("/ip4/10.0.0.5/tcp/31330/p2p/QmX?prefix=lab")
    ('/ip4/10.0.0.5/tcp/31330/p2p/QmX', 'prefix=lab')
    """
    addresses, _, query = text.partition("?")
    found = tuple(part.strip() for part in addresses.split(",") if part.strip())
    wrong = [part for part in found if not ADDRESS.fullmatch(part)]
    if wrong or not found:
        raise LiveError(
            f"--cluster petals://{text}: {wrong[0] if wrong else 'nothing'} is no address of a swarm; write "
            "petals:///ip4/10.0.0.5/tcp/31330/p2p/NAME as its servers print it, several with commas between"
        )
    options = {name: values[0] for name, values in parse_qs(query).items()}
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise LiveError(
            f"--cluster petals://{text}: {unknown[0]} is no option; there are {', '.join(OPTIONS)}"
        )
    return (*found, *(f"{name}={value}" for name, value in options.items()))


def plan_foreign(scenario: Scenario, threads: int = 1) -> PetalsPlan:
    """What `scenario` says of the swarm, with no server of ours; raises what preparing it raises."""
    prepared = prepared_for(scenario, "a swarm", most_chats=MOST_CHATS)
    full = prepared.scenario
    client = prepared.job.placement.embedding
    devices = device_plans(prepared, scenario, threads)
    tokens = full.workload.prompt_tokens + full.workload.output_tokens
    known = recipes().get(full.model.name or "")
    # a model of ours is made here; of any other the client's own part lies in a folder that the address names
    file = model_file(full.model.name) if known and full.model.name else Path()
    shape = known or PetalsRecipe(layers=1, hidden=8, feed_forward=8, heads=1, kv_heads=1, vocabulary=8)
    ordered = tuple(sorted(devices, key=lambda device: device.name != (client or devices[0].name)))
    return PetalsPlan(prepared, file, ordered, (), tokens, shape, ())


class ForeignSwarm(PetalsCluster):
    """A client alone."""

    def __init__(self, plan: PetalsPlan, endpoints: tuple[str, ...]) -> None:
        super().__init__(plan)
        PETALS.require()
        self.bootstrap = [one for one in endpoints if one.startswith("/")]
        self._told = dict(one.split("=", 1) for one in endpoints if not one.startswith("/"))

    @property
    def is_local(self) -> bool:
        """See `LocalCluster`."""
        return False

    def _launch(self) -> None:
        self._client = self._adopt(Nestling(self.plan.client, "client", {"relays": True}))
        self._client.command(
            "load",
            model=str(self._folder()),
            peers=self.bootstrap,
            # a swarm of ours has this prefix; else Petals makes it of the model's name
            prefix=self._told.get("prefix", "" if "model" in self._told else PREFIX),
            repairs=self._repairs(),
            config=self._config(),
        )
        self._client.wait_for("loaded", LOAD_S, self.watch)

    def _folder(self) -> Path:
        if "model" in self._told:
            return Path(self._told["model"]).absolute()
        if self.plan.model == Path():
            raise LiveError(
                f"{self.plan.scenario.name}: the client of {self.plan.scenario.model.name} needs its "
                "embedding and head: give their folder as petals://ADDRESS?model=FOLDER"
            )
        return self.plan.model.parent

    def next_event(self, timeout_s: float, waiting: Callable[[], None] = lambda: None) -> Event:
        """See `LocalCluster`; servers by the ends of their names."""
        event = LocalCluster.next_event(self, timeout_s, waiting)
        if "spans" in event:
            event["spans"] = [(f"..{peer[-NAME_LETTERS:]}", *times) for peer, *times in event["spans"]]
        return event
