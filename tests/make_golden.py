"""Golden summaries: what each scenario of the project predicts, to the byte. `python -m tests.make_golden` renews them.

A change that moves a number shows up here first; CHANGELOG.md says by how much.
"""

from __future__ import annotations

import json
from pathlib import Path

from simulator.errors import SimulatorError
from simulator.files import load
from simulator.run.predict import predict
from simulator.scenario import Scenario

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
SCENARIOS = sorted((ROOT / "scenarios").glob("*.yaml"))
REPLICATIONS = 20  # enough to notice a change, quick enough for every test run


def golden_text(path: Path) -> str:
    """The prediction for a scenario file as JSON, or the refusal."""
    scenario = load(path, Scenario).model_copy(update={"replications": REPLICATIONS})
    try:
        document = predict(scenario, with_what_ifs=False).document()
    except SimulatorError as error:
        document = {"scenario": scenario.name, "error": type(error).__name__, "message": str(error)}
    document.pop("version", None)  # it says when, not what
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def golden_file(path: Path) -> Path:
    """Where a scenario's golden summary is kept."""
    return GOLDEN / f"{path.stem}.json"


def main() -> None:
    """Write them all."""
    for path in SCENARIOS:
        text, file = golden_text(path), golden_file(path)
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        file.write_text(text, encoding="utf-8")
        print(f"{file.relative_to(ROOT)}: {'same' if text == before else 'new'}")


if __name__ == "__main__":
    main()
