"""Attack the readers of files: `python -m tests.fuzz.run --inputs 20000`, or `--long 10` for ten hours.

Each input comes of its kind, the seed and its number alone, so what fails can be had again with `--only NUMBER`.
Inputs run in processes of some hundred each: one that dies, hangs or eats memory is told with its input.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from tests.fuzz.doors.door import Unfit, check
from tests.fuzz.doors.kinds import KINDS
from tests.fuzz.mutate import mutated

MOST_S, MOST_BYTES = 10.0, 300e6
BATCH = 100


class Hang(BaseException):
    """An input that takes too long."""


def _alarm(*_: object) -> None:
    raise Hang


def made(name: str, seed: int, number: int) -> tuple[bytes, random.Random]:
    """The input of that number, and the stream by which its door is chosen."""
    rng = random.Random(f"{name}/{seed}/{number}")
    return mutated(rng, rng.choice(KINDS[name].seeds())), rng


def attempt(name: str, data: bytes, rng: random.Random, folder: Path) -> str:
    """What is wrong with how an input was met, empty where nothing is."""
    signal.signal(signal.SIGALRM, _alarm)
    signal.signal(signal.SIGPROF, _alarm)
    signal.setitimer(signal.ITIMER_REAL, 10 * MOST_S)
    # of our own time: what else runs on this machine makes no hang
    signal.setitimer(signal.ITIMER_PROF, MOST_S)
    try:
        check(KINDS[name], data, folder, rng)
    except Hang:
        return "hang: " + "".join(traceback.format_stack(limit=2))
    except Unfit as error:
        return f"unfit: {error}"
    except BaseException as error:  # that is the question here
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "/tests/" not in f.filename]
        at = next(
            (f for f in reversed(frames) if re.search(r"/(sim|simulator|calibrate|live)/", f.filename)), None
        )
        return (
            f"{type(error).__name__} at {at and f'{Path(at.filename).name}:{at.lineno}'}: {str(error)[:200]}"
        )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
    return ""


def _batch(name: str, seed: int, numbers: range, queue: Any) -> None:
    """A hundred inputs, with what each did to time and memory."""
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            data, rng = made(name, seed, number)
            began_s = time.process_time()
            wrong = attempt(name, data, rng, Path(folder))
            took_s = time.process_time() - began_s
            # the most that this process ever held, imports included
            peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            queue.put((number, wrong, took_s, peak))
    queue.put(None)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--long", type=float, metavar="HOURS", help="as many inputs as there is time for")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", default="")
    parser.add_argument("--only", type=int)
    asked = parser.parse_args()
    names = [name for name in KINDS if not asked.kinds or name in asked.kinds.split(",")]
    if asked.only is not None:
        data, rng = made(names[0], asked.seed, asked.only)
        sys.stdout.buffer.write(data[:3000] + b"\n")
        with tempfile.TemporaryDirectory() as folder:
            check(KINDS[names[0]], data, Path(folder), rng)
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in names:  # imports are paid once, not by each process
            path = Path(folder) / KINDS[name].name
            for door in dict.fromkeys(KINDS[name].doors):
                path.write_bytes(KINDS[name].seeds()[0])
                with contextlib.redirect_stdout(io.StringIO()):
                    door(path)
    found: dict[str, list[str]] = defaultdict(list)
    totals: Counter[str] = Counter()
    worst = {name: [0.0, 0.0, 0.0] for name in names}
    begun, share = time.monotonic(), max(1, asked.inputs // len(names))
    end_s = float("inf")
    if asked.long is not None:
        share, end_s = 10**9, begun + 3600 * asked.long
    context = multiprocessing.get_context("fork")
    for start in range(0, share, BATCH):
        if time.monotonic() > end_s:
            break
        for name in names:
            if time.monotonic() > end_s:
                break
            numbers = range(start, min(start + BATCH, share))
            queue = context.SimpleQueue()
            process = context.Process(target=_batch, args=(name, asked.seed, numbers, queue))
            process.start()
            last = start - 1
            while True:
                while queue.empty() and process.is_alive():
                    time.sleep(0.005)
                if queue.empty():
                    found[f"{name}: died"].append(str(last + 1))
                    break
                if (got := queue.get()) is None:
                    break
                last, wrong, took_s, peak = got
                totals[name] += 1
                if peak > MOST_BYTES and worst[name][1] <= MOST_BYTES:
                    wrong = wrong or f"memory: {peak / 1e6:.0f} MB"
                worst[name] = [
                    max(worst[name][0], took_s),
                    max(worst[name][1], peak),
                    worst[name][2] + took_s,
                ]
                if wrong:
                    found[f"{name}: {wrong}"].append(str(last))
            process.join()
    for text, numbers_ in sorted(found.items()):
        print(f"{len(numbers_):5} {text}  (inputs {', '.join(numbers_[:3])})")
    for name in names:
        print(
            f"{name}: {totals[name]} inputs, {1e3 * worst[name][2] / max(totals[name], 1):.0f} ms each, slowest "
            f"{worst[name][0]:.2f} s, most memory {worst[name][1] / 1e6:.0f} MB"
        )
    print(
        f"{totals.total()} inputs, {sum(map(len, found.values()))} met wrongly, {time.monotonic() - begun:.0f} s"
    )
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
