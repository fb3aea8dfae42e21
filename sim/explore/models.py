"""What the API is asked and answers: the bodies of its requests, and the words of a refusal."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

__all__ = [
    "Asked",
    "Compared",
    "Dropped",
    "Edit",
    "Looked",
    "Measured",
    "Nothing",
    "Placed",
    "Planned",
    "Predicted",
    "Refusal",
    "Sought",
    "Swarmed",
    "Swept",
]

MOST_TEXT = 1_000_000
"""Characters of a scenario: what the reader of files takes (`simulator.files.text.MAX_BYTES`)."""
MOST_MEASURED = 16_000_000
"""Characters of a measurement: an hour of tokens; longer ones are for `sim validate`."""
MOST_VARIANTS = 4

ScenarioText = Annotated[
    str | dict[str, Any],
    WithJsonSchema({"anyOf": [{"type": "string"}, {"$ref": "#/components/schemas/Scenario"}]}),
]
"""A scenario as a file has it (YAML or JSON), or the same as an object."""


class Body(BaseModel):
    """A request's body; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


class Edit(Body):
    """One change of a scenario's text: text is written as it is typed, null takes the key out."""

    path: list[str | int] = Field(min_length=1, max_length=50)
    value: Any = None


class Asked(Body):
    """A scenario and what is to be changed in it first."""

    scenario: ScenarioText
    edits: list[Edit] = Field(default=[], max_length=200)


class Predicted(Asked):
    """What a scenario is expected to do."""

    quick: bool = Field(default=False, description="fewer replications and nothing that takes SimPy")
    against: ScenarioText | None = Field(default=None, description="the scenario to be held against")


class Compared(Body):
    """Scenarios on the same random numbers, the first the reference; one alone meets its other strategy."""

    scenarios: list[ScenarioText] = Field(min_length=1, max_length=MOST_VARIANTS)


class Placed(Asked):
    """Where the layers should go."""

    objective: Literal["chat", "users", "slowest-stage", "p99", "first-token"] = "chat"


class Planned(Asked):
    """What to buy."""

    budget: str = Field(default="800 EUR", max_length=60)
    goal: str | None = Field(default=None, max_length=60)
    most_purchases: int = Field(default=1, ge=0, le=2)
    allow: str | None = Field(default=None, max_length=200)


class Swept(Asked):
    """One field along its values, as `sim sweep --over`."""

    over: str = Field(max_length=500)


class Dropped(Asked):
    """A device that leaves in the middle of a reply."""

    device: str = Field(max_length=100)
    at_token: int | None = Field(default=None, ge=1)
    silent: bool = False


class Swarmed(Asked):
    """Hours of a swarm."""

    hours: float | None = Field(default=None, ge=0.01, le=48)


class Measured(Asked):
    """A measurement file's content, to be laid over the prediction."""

    name: str = Field(default="measurement.jsonl", max_length=200)
    content: str = Field(max_length=MOST_MEASURED)


class Looked(Body):
    """A cluster to look at, read only."""

    cluster: str = Field(max_length=500)
    follow: str | None = Field(
        default=None, max_length=1000, description="the file that `sim live run` writes"
    )


class Sought(Body):
    """How long to listen for devices that announce themselves."""

    seconds: float = Field(default=2.0, ge=0.5, le=10)


class FaultAt(BaseModel):
    """One fault: where, why, and on which line of the text."""

    path: str
    reason: str
    line: int | None


class Nothing(Body):
    """A question without a body."""


class Refusal(BaseModel):
    """Why there is no answer, in the words of the command line."""

    error: str
    faults: list[FaultAt] = []
