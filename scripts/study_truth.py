"""Does calibration find what was put in? Synthetic
measurements from known parameters, fitted again, 200 times.

Usage: python scripts/study_truth.py [TRIALS [PROCESSES]], one process unless told; their number moves no figure.

Each trial simulates one session of eleven placements on three devices with noise as
large as a real rig's (tokens 20 %, runs 5 %, sessions 5 %), fits it, and asks whether
each 90 % interval holds the truth. Writes results/truth/report.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

from calibrate.truth import PLACEMENTS, TRUTH, report, trials
from simulator.files import write_text_atomically

FOLDER = Path(__file__).resolve().parent.parent / "results" / "truth"


def main(count: int = 200, processes: int = 1) -> None:
    """Run the trials and write the report."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    found = trials(
        count,
        processes=processes,
        progress=lambda done: print(f"{done} of {count}", end="\r", file=sys.stderr),
    )
    text = report(found)
    write_text_atomically(FOLDER / "report.md", text)
    print(text)
    print(f"{len(PLACEMENTS)} placements, {len(TRUTH)} parameters")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
