"""Facts of an engine: what its data files say of costs and recovery; they stand
beside its code, with sources.

`engine.yaml`: where it runs, what it sends, what it costs beside the arithmetic. `recovery.yaml`: the law (s)
of every phase between the loss of a device and the next token that is neither arithmetic (loading, warm-up
tokens, the prompt read again) nor the client's own choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from simulator.catalog.tables import Facts, yaml_tree
from simulator.cluster.cluster import Cluster
from simulator.errors import CatalogError, did_you_mean
from simulator.laws.law import Constant, Empirical, Law
from simulator.laws.recorded import one_more
from simulator.runtime.collective import Algorithm
from simulator.units import SIZE, TIME, read_quantity

__all__ = [
    "BackendFacts",
    "ChipShare",
    "EngineFacts",
    "ProtocolFacts",
    "RecoveryFacts",
    "SourcedLaw",
    "read_facts",
    "read_recovery",
]

NOTHING: Law = Constant(value=0.0)


class ProtocolFacts(Facts):
    """What a version of a wire protocol makes the client wait for, until the next one here."""

    version: str
    answered: tuple[Literal["set_tensor", "graph_compute"], ...] = ()
    """Messages that the client waits for an answer to, beside the read at the end of each request."""
    keeps_graph: bool
    """Whether a server keeps the last graph; else it travels with each request."""
    inputs: int
    """Tensors in each request beside hidden states and the word which token needs logits."""
    source: str
    confidence: str

    @model_validator(mode="after")
    def _tensors_are_not_answered_alone(self) -> ProtocolFacts:
        # both evaluators build on it: a server that is asked singly is never still busy with the chunk before
        if self.answered == ("set_tensor",):
            raise ValueError("a protocol that answers set_tensor answers graph_compute too")
        return self


class ChipShare(Facts):
    """Chips whose peaks an engine reaches another share of than of those that the fit is of."""

    chips: str
    """A pattern of their names."""
    decode: float = 1.0
    prefill: float = 1.0
    log_sd: float = 0.0
    source: str = ""
    confidence: str = ""


class BackendFacts(Facts):
    """What carries an engine's collectives, and what that costs per message beside the link."""

    name: str
    algorithm: Algorithm
    hop_overhead_s: float
    hop_log_sd: float | None = None
    """How unsure that is, where it is not as the engine's other overheads."""
    runs_on: tuple[str, ...] | None = None
    """Platforms that have it; none: all of the engine's."""
    without_rdma: bool = False
    """Whether it sends by TCP also where the link could do better."""
    links: tuple[str, ...] | None = None
    """Kinds of network that it needs between every two ranks; none: any."""
    source: str
    confidence: str

    def lacks(self, cluster: Cluster, names: Sequence[str]) -> str:
        """What it would need among these devices and does not find, in words; empty where it has all."""
        devices = [cluster.device(name) for name in names]
        if self.runs_on is not None:
            known = {*self.runs_on, "unknown"}
            strange = [f"{one.name} ({one.platform})" for one in devices if one.platform not in known]
            if strange:
                return f"it runs on {' and '.join(self.runs_on)}, not on {', '.join(strange)}"
        for a, b in combinations(names, 2):
            # what was told by numbers may be anything
            kinds = set(cluster.kinds_between(a, b)) - {"custom", "cable"}
            if self.links is not None and not kinds <= set(self.links):
                need = " or ".join(self.links)
                return f"it needs {need} between every two devices, and {a} and {b} have {', '.join(kinds)}"
        return ""

    @model_validator(mode="before")
    @classmethod
    def _in_seconds(cls, entry: Any) -> Any:
        told = dict(entry)
        if "hop_overhead" in told:
            told["hop_overhead_s"] = read_quantity(told.pop("hop_overhead"), TIME)
        return told


class EngineFacts(Facts):
    """One engine. Overheads are medians; `overhead_log_sd` is how unsure they are (natural logarithm)."""

    name: str
    aliases: tuple[str, ...] = ()
    title: str
    software: str | None = None
    """The engine that it is another strategy of, whose measurements teach it and are taught by its own."""
    runtime: Literal["mlx", "llama.cpp"]
    """What computes under it: which of a platform's fitted efficiencies holds."""
    runs_on: tuple[str, ...]
    does_not_run_on: tuple[str, ...] = ()
    note: str = ""
    """What to tell somebody on whose platform it does not run, with the way out."""
    needs: str = ""
    host_note: str = ""
    """What to add where it uses one of a device's several processors."""
    chats_note: str = ""
    """What its flow here leaves out where several chats come at once."""
    default_format: str
    unquantised_except: tuple[str, ...] | None = None
    """Platforms on which it runs quantised models, where it runs 16 bits on all others; none: everywhere."""
    quantised_on: str = "Macs"
    """The same in words."""
    quantisations: dict[str, str] = {}
    """What its users call a quantisation, and what the catalogue calls the one that they then get."""
    activation_bytes_per_value: int
    placement: str
    """The placement rule that the engine uses when nobody chooses."""
    client_idles_on: tuple[str, ...] = ()
    """Platforms on which the client of a star computes no layers unless told, where others can."""
    step_overhead_s: float
    hop_overhead_s: float
    request_overhead_s: float = 0.0
    overhead_log_sd: float
    memory_overhead_bytes: float
    run_log_sd: float = 0.0
    """How runs of one session differ (natural logarithm), as recorded; all devices together."""
    session_log_sd: float = 0.0
    """How sessions differ, from one start of the cluster to the next."""
    embedding_on_host: bool = False
    """Whether the token embedding stays in the memory of the computer around a graphics card."""
    reads_whole_cache: bool = False
    """Whether sparse attention is dense attention with a mask there, so that its index saves nothing."""
    compute_share: float = 1.0
    """Share of a platform's fitted decode speed that the engine's own runtime reaches, with its log sd."""
    compute_share_log_sd: float = 0.0
    chip_shares: tuple[ChipShare, ...] = ()
    """What of that share its kernels reach on some chips, whatever they compute."""
    compute_share_except: tuple[str, ...] = ()
    """Platforms where it runs what the fit was made with."""
    kernel_shares: dict[str, dict[str, float]] = {}
    """By quantisation and pattern of a chip's name: that share where its kernels reach another one."""
    prompt_chunk_tokens: int | None = None
    """Prompts are read in chunks of at most so many tokens; none: in one piece."""
    protocols: tuple[ProtocolFacts, ...] = ()
    """Versions of its wire protocol that cost differently, oldest first; the last one runs unless told."""
    sharding: Literal["pipeline", "tensor"] = "pipeline"
    """Whether a device holds whole layers, or a part of each."""
    collectives_per_layer: int = 2
    """Of tensor parallelism."""
    ranks: Literal["any", "powers of two"] = "any"
    """How many devices it splits layers among."""
    splits_head: bool = False
    """Whether each rank computes its part of the logits, which are then gathered; else each computes all."""
    sends_inputs: bool = False
    """Whether each step begins with a message that tells the ranks what to compute."""
    reduced_share: float = 1.0
    """Bytes of a reduced value on the wire, beside those of the hidden state."""
    quantisation_group: int | None = None
    """Quantised columns that a rank holds must be a multiple of it; none: any number."""
    backends: tuple[BackendFacts, ...] = ()
    """What can carry its collectives, the usual one first."""
    options: tuple[str, ...] = ()
    """Settings of a scenario's engine that are this engine's own, see `EngineSpec`."""
    stands_for: str | None = None
    """The engine that a scenario means where this one stands for it."""
    serving_overhead_s: dict[str, float] = {}
    """By platform: a server's own work for what it is asked, beside that for its messages."""
    latent_layer_overhead_s: dict[str, float] = {}
    """By platform: further fixed time of a layer with latent attention, whose many small kernels no rank is
    spared.
    """
    expert_evenness: float | None = None
    """How evenly chats of a batch choose experts, each of which is read once for all of them (shape of a beta
    law); none: as if all experts were alike.
    """
    chats_at_once: int | None = None
    """Chats whose KV caches are in memory together, others wait; none: as many as come."""
    source: str
    confidence: str
    assumed_fields: tuple[str, ...] = ()

    def is_unquantised_on(self, platforms: Iterable[str]) -> bool:
        """Whether one of these platforms, an unknown one as well, makes it run 16-bit weights."""
        if self.unquantised_except is None:
            return False
        return not set(platforms) <= set(self.unquantised_except)

    def known_as(self, quantisation: str | None) -> str | None:
        """What the catalogue calls a quantisation that a user of this engine names."""
        return self.quantisations.get((quantisation or "").lower(), quantisation)

    def share_on(self, platform: str, chip: str, quantisation: str) -> tuple[float, float]:
        """Share of the fitted decode speed that its kernels reach on a chip, and its log sd."""
        if platform in self.compute_share_except:
            return 1.0, 0.0
        by_chip = self.kernel_shares.get(quantisation, {})
        share = next((share for pattern, share in by_chip.items() if re.search(pattern, chip)), None)
        return self.compute_share if share is None else share, self.compute_share_log_sd

    def chip_share(self, chip: str) -> ChipShare:
        """What of the usual share its kernels reach on a chip: all of it where nothing is said."""
        found = (share for share in self.chip_shares if re.search(share.chips, chip))
        return next(found, ChipShare(chips=chip))

    def backend(self, name: str | None) -> BackendFacts:
        """The backend of that name, the usual one for None; raises CatalogError where the engine lacks it."""
        known = {backend.name: backend for backend in self.backends}
        if not known:
            raise CatalogError(f"engine {self.name!r} has no backends to choose from; leave `backend` out")
        if name is not None and name not in known:
            near = did_you_mean(name, list(known))
            raise CatalogError(
                f"engine {self.name!r} has no backend {name[:80]!r}{near}; one of {', '.join(known)}"
            )
        return self.backends[0] if name is None else known[name]

    def can_split(self, ranks: int, hidden: int, kv_heads: int | None) -> bool:
        """Whether it splits the layers of such a model among so many devices."""
        power = ranks & (ranks - 1) == 0 or self.ranks == "any"
        # one KV head is held by every rank, several are dealt out
        return power and hidden % ranks == 0 and (kv_heads in (None, 1) or kv_heads % ranks == 0)

    def protocol(self, version: str | None) -> ProtocolFacts:
        """How that version of the wire protocol ('2', 'v3.5.1') speaks: as the newest of ours up to it.

        None is the newest. Raises CatalogError where the engine has no protocols, or none so old or so new.
        """
        if not self.protocols:
            raise CatalogError(f"engine {self.name!r} has no protocols to choose from; leave `protocol` out")
        if version is None:
            return self.protocols[-1]
        asked, newest = _numbers(version), _numbers(self.protocols[-1].version)
        spoken = [protocol for protocol in self.protocols if _numbers(protocol.version) <= asked]
        if not spoken or asked[0] > newest[0]:
            known = ", ".join(protocol.version for protocol in self.protocols)
            raise CatalogError(
                f"{version[:80]!r} is no known protocol of engine {self.name!r}; those that cost differently "
                f"are {known}, and a version between two of them speaks like the older one"
            )
        return spoken[-1]


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, (0,) where it has none, so that nothing known is as old.

    >>> _numbers("v3.5.1"), _numbers("3"), _numbers("newest")
    ((3, 5, 1), (3,), (0,))
    """
    found = re.fullmatch(r"v?(\d{1,9}(?:\.\d{1,9}){0,3})", version.strip().lower())
    return tuple(map(int, found[1].split("."))) if found else (0,)


# keys of the file that carry a unit: the field they fill, and the units it is read in
QUANTITIES = {
    "step_overhead": ("step_overhead_s", TIME),
    "hop_overhead": ("hop_overhead_s", TIME),
    "request_overhead": ("request_overhead_s", TIME),
    "memory_overhead": ("memory_overhead_bytes", SIZE),
}
TIMES_BY_PLATFORM = ("latent_layer_overhead", "serving_overhead")


@cache
def read_facts(folder: Path, variant: str | None = None) -> EngineFacts:
    """The facts in `engine.yaml` of an engine's folder, in base units; its `assumed`
    names become field names. `variant` is a file of the folder that says what is different there.
    """
    entry = yaml_tree(folder / "engine.yaml") | (yaml_tree(folder / variant) if variant else {})
    others = {*QUANTITIES, *TIMES_BY_PLATFORM, "assumed"}
    fields = {key: value for key, value in entry.items() if key not in others}
    for key, (field, units) in QUANTITIES.items():
        if key in entry:
            fields[field] = read_quantity(entry[key], units)
    for key in TIMES_BY_PLATFORM:
        fields[f"{key}_s"] = {on: read_quantity(time, TIME) for on, time in entry.get(key, {}).items()}
    assumed = tuple(QUANTITIES[name][0] if name in QUANTITIES else name for name in entry["assumed"])
    return EngineFacts.model_validate(fields | {"assumed_fields": assumed})


class SourcedLaw(Facts):
    """The law of a duration (s) and who says so."""

    law: Law
    recorded: bool = False
    """Whether its samples are what single repeats took, of which one more may lie outside (`one_more`)."""
    source: str
    confidence: str

    @property
    def drawn(self) -> Law:
        """The law of the next time."""
        return one_more(self.law.samples) if self.recorded and isinstance(self.law, Empirical) else self.law


class RecoveryFacts(Facts):
    """How one engine gets over the loss of a device.

    ========================= ============================================================================
    law                       time (s)
    ========================= ============================================================================
    `engine_notices_killed`,  from the fault until the engine itself ends the stream; none where it never
    `engine_notices_silent`   does
    `reports_every`           between two signs of life of a device, where the client learns of a loss from
                              the engine's own state
    `placeable_after_first`   from the loss of the first device to have joined (the master) until anything
                              can be placed
    `placeable_after`         from a loss until the engine has noticed it by itself and serves again
    `decide`, `release`,      request to place until it is accepted; until old shards are gone; until new
    `start`, `connect`        processes run; until they are connected
    `load_fixed`,             of a load, beside its bytes and its round trips over bare links; of that, for
    `load_per_server`         each server
    `first_prompt_fixed`,     of the first prompt after a load, beyond a later one; of that, for each server
    `first_prompt_per_server`
    `warm_up_fixed`           of the warm-up, beside its tokens
    `resume`                  of a request, beside reading the prompt
    `rejoin`                  from the start of a returning process until it can be placed on
    ========================= ============================================================================
    """

    client_may_split: bool
    """The client may ask for a split of its own when the engine's rule refuses."""
    files: Literal["everywhere", "own_shard", "client"]
    file_cache: Literal["copied", "mapped"]
    """Whether weights in memory are a copy beside the file cache, or are the file cache."""
    loads: Literal["parallel", "through_client"]
    warm_up_tokens: int
    load_log_sd: float
    """Of the logarithm of a load's duration: disks and caches are assumed."""
    wire_log_sd: float | None = None
    """The same of what comes over a link, whose rate is drawn besides; none: as of a disk."""
    left_under_way_bytes: float = 0.0
    """What a load that breaks off leaves in buffers: its server takes that in before it answers anybody."""
    load_round_trips: int = 0
    """How often the client waits for each server's answer while it loads, one after the other."""
    first_prompt_round_trips: int = 0
    """The same before the first prompt after a load, beyond what every prompt waits for."""
    laws: dict[str, SourcedLaw]

    @property
    def fed_log_sd(self) -> float:
        """Of the logarithm of a duration of what comes over a link."""
        return self.load_log_sd if self.wire_log_sd is None else self.wire_log_sd

    def law(self, name: str) -> Law | None:
        """The law of that name, None where the engine never does it."""
        return self.laws[name].drawn if name in self.laws else None

    def delay(self, name: str) -> Law:
        """The law of that name, no time at all where the engine does not do it."""
        return self.law(name) or NOTHING


@cache
def read_recovery(folder: Path) -> RecoveryFacts:
    """The facts in `recovery.yaml` of an engine's folder."""
    entry: dict[str, Any] = yaml_tree(folder / "recovery.yaml")
    return RecoveryFacts.model_validate(entry)
