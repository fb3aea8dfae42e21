"""The one exception tree of the project.

::

    SimulatorError            anything that a user can mend; `sim` prints it and exits with `exit_code`
                              (docs/exit-codes.md)
      UnitError               a quantity that cannot be read ("0.4 mS")
      ScenarioError           a scenario file with faults: carries all of them
      CatalogError            a device, model, network or engine that the catalogue does not know
      PlacementError          layers that fit nowhere
        ExoRefusal            what EXO itself refuses, with its own words (simulator.engine.exo.request)
      CalibrationError        measurements that cannot be fitted
      MeasurementError        a file of measurements or outcomes that cannot be read or believed
      LiveError               a real cluster that does not do what was asked
        Unreachable           nothing answers at that address
        ApiChanged            it answers, but not in a form that we know
        StreamBroken          a token stream ended before its end; carries what had arrived
        EngineUnavailable     the engine or a tool that it needs is not installed
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

__all__ = [
    "ApiChanged",
    "CalibrationError",
    "CatalogError",
    "EngineUnavailable",
    "Fault",
    "LiveError",
    "MeasurementError",
    "PlacementError",
    "ScenarioError",
    "SimulatorError",
    "StreamBroken",
    "UnitError",
    "Unreachable",
    "did_you_mean",
    "in_lines",
]


class SimulatorError(Exception):
    """Something that the user can mend; the message holds the value, the rule and the way out.

    `exit_code` is 2 for what was asked wrongly, 3 for what is right and fits nowhere, 1 for a world that does
    not do what was asked of it.
    """

    exit_code = 2


class UnitError(SimulatorError, ValueError):
    """A quantity that cannot be read. A `ValueError` too, so that pydantic turns it
    into a fault of the field.
    """


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in one place of a file; `line` is 1-based, None where no line is to blame."""

    path: str
    reason: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


def in_lines(file: str, faults: Iterable[Fault]) -> list[str]:
    """One `file:line: path: reason` per fault, in their order."""
    return [f"{file}:{fault.line}: {fault}" if fault.line else f"{file}: {fault}" for fault in faults]


class ScenarioError(SimulatorError):
    """A scenario with faults; `faults` holds every one that could be found in one pass."""

    def __init__(self, file: str, faults: Sequence[Fault]) -> None:
        self.file = file
        self.faults = tuple(faults)
        super().__init__("\n".join(self.lines()))

    def __reduce__(self) -> tuple[type[ScenarioError], tuple[str, tuple[Fault, ...]]]:
        """Cross a process boundary whole: the default would pass the message as the file."""
        return type(self), (self.file, self.faults)

    def lines(self) -> list[str]:
        """One `file:line: path: reason` per fault, in the order of the file."""
        return in_lines(self.file, sorted(self.faults, key=lambda fault: fault.line or 0))


class CatalogError(SimulatorError, ValueError):
    """A name that the catalogue does not hold."""


class PlacementError(SimulatorError):
    """Layers that fit nowhere, or a split that the engine would refuse; the message holds both figures.

    `fault` is the message without `advice`: what helps in general, which who has tried it need not say.
    """

    exit_code = 3

    def __init__(self, fault: str, advice: str = "") -> None:
        self.fault = fault
        # one argument: an exception comes back from another process by its arguments
        super().__init__(f"{fault}{advice}")


class CalibrationError(SimulatorError):
    """Measurements from which the asked-for parameters cannot be fitted."""

    exit_code = 1


class MeasurementError(SimulatorError):
    """A file of measurements or outcomes that cannot be read or believed."""


class LiveError(SimulatorError):
    """A real cluster that does not do what was asked."""

    exit_code = 1


class Unreachable(LiveError):
    """Nothing answers at that address."""


class ApiChanged(LiveError):
    """Something answers, but not in a form that this version knows."""


class StreamBroken(LiveError):
    """A token stream that ended before its end; `tokens_received` tells how far it came."""

    def __init__(self, message: str, tokens_received: int = 0) -> None:
        self.tokens_received = tokens_received
        super().__init__(message)


class EngineUnavailable(LiveError):
    """The engine, or a tool that it needs, is not installed here."""


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The phrase ", did you mean 'x'?" when a known name is near, else an empty string."""
    # in small letters, and said as the thing is written
    near = get_close_matches(name.lower(), [known_name.lower() for known_name in known], n=1, cutoff=0.6)
    if not near:
        return ""
    return f", did you mean '{next(known_name for known_name in known if known_name.lower() == near[0])}'?"
