"""Measurement: what a real cluster did, with everything that is needed to believe it.

A JSON Lines file, appended as things happen, so that an interrupted run keeps what it had; once it is kept
for good it may be packed (`.jsonl.gz`). Line 1 is the header (`Provenance`), each further line an event with
a `type`:

==========  ==========================================================================================
type        fields
==========  ==========================================================================================
`request`   `run chat prompt_tokens sent_ns`: a request left the client (`sent_ns` since the start of the
            file's clock)
`token`     `run chat token t_ns`: token `token` (from 0) arrived `t_ns` after its own request was sent
`chunk`     `run chat chunk t_ns told`: a chunk of a stream whose chunks are not tokens (OpenAI-compatible
            servers); `told` is the server's running count. Its `token` lines name their `chunk`, and come
            when the reply is over
`result`    `run chat outcome tokens`: how the reply ended (`complete`, or the name of an error), with
            `detail`
`hop`       `run source sink size_bytes sent_ns imposed_ns late_ns messages`: what passed a relay at once
            (`sent_ns`: its last byte arrived), the delay imposed on it, and by how much the relay was later
            than that
`link`      `source sink rtt_ns size_bytes loaded`: a round trip of `size_bytes` there and back, idle or
            under load
`link_rate` `source sink bytes_per_s seconds`: throughput in one direction
`speed`     `device memory_bytes_per_s disk_bytes_per_s`: what an agent measured of its own device
`span`      `run chat token device start_ns end_ns`: what a client asked a device for, for that token, from
            the request to the reply, after the chat's own request
`device`    `run device busy_s wall_s service_s`: CPU time of a device's engine during one run
`reference` `visit at_ns seconds_per_token`: the fixed workload between configurations, to see the machine
            drift
`repeatability` `visit_median_s run_median_s relative_range`: how far the visits to one configuration differ
`phase`     `run phase device start_ns end_ns`: a phase of a recovery, or a load
`disturbed` `run by`: somebody else used the cluster during this run
`warning`   `text`: a doubt that arose while measuring
`end`       `outcome`: `complete` or `interrupted`; a file without it was cut off
==========  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, ValidationError

from simulator.errors import Fault, MeasurementError, SimulatorError, in_lines
from simulator.files import Appender, json_lines, packed
from simulator.files.explain import in_words
from simulator.laws.law import Floats
from simulator.result.events import Event, checked_event, cut_clock
from simulator.spec import Spec

__all__ = [
    "DeviceProvenance",
    "Measurement",
    "MeasurementWriter",
    "Provenance",
    "ShardProvenance",
    "read_measurement",
]


MOST_FAULTS = 20
"""Faults told of one file; a wrong file has them in every line."""
Count = Annotated[int, Field(ge=0, le=10_000_000)]
Word = Annotated[str, Field(max_length=1000)]


class ShardProvenance(Spec):
    """The layers [start_layer, end_layer) that one device really held."""

    device: Word
    start_layer: Count
    end_layer: Count


class DeviceProvenance(Spec):
    """One device as it was while measuring; what could not be read says 'unknown'."""

    name: Word
    chip: Word
    os: Word
    memory_bytes: float | None = None
    link_kind: Word = "unknown"
    power_source: Word = "unknown"
    throttle_asked: float | None = None
    """Share of its full speed that was asked for."""
    throttle_achieved: float | None = None
    details: dict[str, Any] = Field(default_factory=dict)


class Provenance(Spec):
    """The header of a Measurement: without it numbers mean nothing, so every field
    without a default is required.
    """

    format: Literal[1] = 1
    name: Word
    created: Word
    """ISO time in UTC."""
    source: Literal["local", "exo", "exo-legacy", "llama-rpc", "petals", "openai", "agent"]
    engine: Word
    engine_version: Word
    model: Word
    model_layers: Count
    model_bytes: float | None = None
    hidden_bytes: float | None = None
    """Bytes of one token's hidden state."""
    devices: Annotated[tuple[DeviceProvenance, ...], Field(max_length=1000)]
    placement: Annotated[tuple[ShardProvenance, ...], Field(max_length=1000)]
    """In ring order."""
    prompt_tokens: Count
    output_tokens: Count
    runs: Count
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 1
    warm_up_requests: Count
    clock: Word
    scenario_sha256: Word = ""
    scenario: dict[str, Any] | None = None
    """The scenario as it was measured, so that a file stands alone."""
    cluster: dict[str, Any] = Field(default_factory=dict)
    """Snapshot of the cluster: state, load, versions, link laws as imposed."""
    software: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measurement:
    """A Measurement file in memory."""

    provenance: Provenance
    events: tuple[dict[str, Any], ...]
    complete: bool
    """False when the run was interrupted or the file cut off."""
    sha256: str
    """Of the content, not of its packing: what ledgers and calibrations know it by."""
    path: str = ""
    faults: tuple[str, ...] = ()
    """`file:line: reason` of each line that is left out, and of replies that a clock spoilt."""

    def of(self, kind: str) -> Iterator[dict[str, Any]]:
        """The events of one type, in the order of the file."""
        return (event for event in self.events if event["type"] == kind)

    def token_times_s(self) -> dict[tuple[int, int], Floats]:
        """Arrival times (s after its own request) of each (run, chat), in token order."""
        times: dict[tuple[int, int], list[float]] = {}
        for event in self.of("token"):
            times.setdefault((event["run"], event.get("chat", 0)), []).append(event["t_ns"] / 1e9)
        return {key: np.asarray(values) for key, values in times.items()}

    @property
    def mended_runs(self) -> frozenset[int]:
        """Runs that lost a device and went on: they hold the phases of a
        recovery, and are no steady state.
        """
        return frozenset(event["run"] for event in self.of("phase"))

    @property
    def disturbed_runs(self) -> frozenset[int]:
        """Runs during which somebody else used the cluster: they hold that work too."""
        return frozenset(event["run"] for event in self.of("disturbed"))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What of the file is left out, and doubts that arose while measuring."""
        return (*self.faults, *(event["text"] for event in self.of("warning")))


class MeasurementWriter:
    """Appends events to a new file; each line is with the system before the next one is taken.

    >>> # with MeasurementWriter(path, provenance) as out: out.write("token", run=0, chat=0, token=0, t_ns=5)
    """

    def __init__(self, path: str | Path, provenance: Provenance) -> None:
        self.path = Path(path)
        if (taken := packed(self.path)).exists():
            raise MeasurementError(f"{taken} exists and is never overwritten; choose another name")
        # new: of two measurements that start at once one is refused
        self._lines = Appender(self.path, new=True)
        try:
            self._lines.append({"type": "header", **provenance.model_dump(mode="json")})
        except BaseException:  # a disk without room for a header must not keep the name
            self._lines.close()
            self.path.unlink(missing_ok=True)
            raise

    def write(self, kind: str, **fields: Any) -> None:
        """Append one event; raises SimulatorError where the disk is full."""
        self._lines.append({"type": kind, **fields})

    def warn(self, text: str) -> None:
        """Append a doubt."""
        self.write("warning", text=text)

    def close(self, outcome: str = "complete") -> None:
        """End the file, which is on the disk then; `outcome` is complete or interrupted."""
        if self._lines.is_open:
            try:
                self.write("end", outcome=outcome)
            finally:
                self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        # what went wrong first is what counts: a full disk cannot take the end either
        with suppress(SimulatorError) if error else nullcontext():
            self.close("complete" if kind is None else "interrupted")


def read_measurement(path: str | Path) -> Measurement:
    """Read a Measurement, packed or not; a line that is none, or cannot be true, is left out and told in
    `faults`, and so are tokens that a lost line or a clock that jumped spoilt.

    Raises MeasurementError for a file that cannot be read or has no header to go by.
    """
    file, digest = Path(path), sha256()
    # of the plain lines, so that a packed file is known by the same name
    lines = json_lines(file, digest)
    provenance = _header(file, next(lines, (1, {})))
    events, faults = list[tuple[int, Event]](), list[Fault]()
    for number, found in lines:
        event = found if isinstance(found, Fault) else checked_event(found)
        if isinstance(event, str):
            event = Fault("", f"{event}; left out", number)
        if isinstance(event, Fault):
            faults.append(event)
        else:
            events.append((number, event))
    kept, spoilt = cut_clock(events)
    complete = bool(kept) and kept[-1]["type"] == "end" and kept[-1]["outcome"] == "complete"
    return Measurement(
        provenance,
        tuple(kept),
        complete,
        digest.hexdigest(),
        str(file),
        tuple(_told(file, [*faults, *spoilt])),
    )


def _header(file: Path, first: tuple[int, Event | Fault]) -> Provenance:
    number, found = first
    if isinstance(found, Fault):
        raise MeasurementError(f"{file}:{number}: {found}; a measurement starts with a line of type 'header'")
    if found.pop("type", None) != "header":
        raise MeasurementError(
            f"{file}:{number}: no header; a measurement starts with a line of type 'header'"
        )
    try:
        return Provenance.model_validate(found)
    except ValidationError as error:
        raise MeasurementError(f"{file}:{number}: header: {in_words(error)}") from None


def _told(file: Path, faults: Sequence[Fault]) -> list[str]:
    more = len(faults) - MOST_FAULTS
    lines = in_lines(str(file), sorted(faults[:MOST_FAULTS], key=lambda fault: fault.line or 0))
    return [*lines, f"{file}: {more} more faults like these"] if more > 0 else lines
