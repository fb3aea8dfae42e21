"""Real processes in places that are none: each ends with its exit code and a message, never a traceback."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sim.main import main
from tests.test_cli import SMALL

ROOT = Path(__file__).parents[2]
START = (sys.executable, "-c", "from sim.start import main; main()")
RUN = ("run", "small.yaml", "--no-charts", "--replications", "2")
Done = tuple[int, str, str]
Command = Callable[..., Done]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a small scenario."""
    (tmp_path / "small.yaml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def sim(*words: str, shell: str = "", limit: Callable[[], None] | None = None, **changes: str) -> Done:
    """Run `sim` with `shell` behind it, as '> /dev/full'; (exit code, standard output, standard error)."""
    line = ["bash", "-c", f'set -o pipefail; "$@" {shell}', "sim", *START, *words]
    done = subprocess.run(
        line, capture_output=True, env={**os.environ, **changes}, preexec_fn=limit, timeout=60, check=False
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in out + err, err
    assert "Exception ignored" not in err
    assert "panicked" not in err
    return done.returncode, out, err


@pytest.fixture
def command(here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """The same in this process, where nothing of the process is put to the test."""

    def run(*words: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["sim", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return (int(end.value.code or 0), *capfd.readouterr())

    return run


def few_files(count: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


@pytest.mark.parametrize(
    ("words", "unbuffered"), [(("--help",), ""), (("catalog", "devices"), "1"), (("schema",), ""), (RUN, "")]
)
def test_a_reader_that_leaves_is_an_end(here: Path, words: tuple[str, ...], unbuffered: str) -> None:
    assert sim(*words, shell="| true", PYTHONUNBUFFERED=unbuffered) == (0, "", "")


@pytest.mark.parametrize("words", [("schema",), RUN], ids=lambda words: words[0])
def test_a_full_disk_below_standard_output_is_one_message(here: Path, words: tuple[str, ...]) -> None:
    code, _, err = sim(*words, shell="> /dev/full")
    assert (code, err.count("\n")) == (2, 1)
    assert "standard output: cannot be written (No space left on device)" in err


def test_streams_that_are_closed_or_full(here: Path) -> None:
    assert sim(*RUN, shell="<&- >&- 2>&-") == (0, "", "")
    assert sim("run", "absent", shell="<&- 2> /dev/full") == (2, "", "")
    assert sim("run", "absent", shell="2>&-") == (2, "", "")
    assert not [path for path in here.iterdir() if path.name not in ("small.yaml", "results")]


def test_few_open_files(here: Path) -> None:
    """Without charts 16 do; with them the message comes before the threads that draw complain."""
    assert sim(*RUN, limit=few_files(16))[0] == 0
    code, _, err = sim("run", "small.yaml", "--replications", "2", limit=few_files(16))
    assert (code, err.count("\n")) == (2, 1)
    assert "ulimit -n 256" in err
    assert "--no-charts" in err


def test_few_open_files_and_processes(here: Path) -> None:
    over = ("--over", "workload.output_tokens=4,8", "--workers", "2", "--out", "swept")
    code, _, err = sim("sweep", "small.yaml", *over, limit=few_files(10))
    assert (code, err.count("\n")) == (2, 1)
    assert "Too many open files" in err


def test_a_terminal_that_knows_ascii_only(here: Path) -> None:
    plain = {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    Path("small.yaml").write_text(SMALL.replace("speed: {", "speed: {decode_spread: 0.2, "))
    code, out, _ = sim(*RUN, **plain)
    assert (code, out.isascii()) == (0, True)
    assert "+- " in out
    assert r"r\xfcbe" in sim("run", "rübe", **plain)[2]


def test_folders_of_the_user_that_are_files(here: Path) -> None:
    """What is only faster with a cache does without one; what needs one names it."""
    broken = dict.fromkeys(("XDG_CACHE_HOME", "MPLCONFIGDIR", "TMPDIR", "HOME"), str(here / "small.yaml"))
    assert sim("run", "small.yaml", "--replications", "2", **broken)[0] == 0
    code, _, err = sim("live", "local", "install", SIM_CACHE=str(here / "small.yaml"))
    assert (code, err.count("\n")) == (2, 1)
    assert "small.yaml/wheels: Not a directory; a file stands where a folder should be" in err


@pytest.mark.parametrize(
    "words",
    [
        ("run", "a" * 100_000),
        ("run", "small.yaml", "--no-charts", "--out", "a" * 100_000),
        ("run", "small.yaml", "--calibration", "a" * 100_000),
        ("init", "-o", "a" * 100_000),
        ("ledger", "--ledger-file", "a" * 100_000),
        ("summary", "a" * 100_000),
        ("live", "watch", "--cluster", "exo://" + "a" * 100_000),
        ("--catalog", "a" * 100_000, "catalog", "devices"),
        ("a" * 100_000,),
    ],
    ids=lambda words: " ".join(words)[:20],
)
def test_overlong_arguments(command: Command, words: tuple[str, ...]) -> None:
    code, out, err = command(*words)
    assert code in (1, 2)
    assert out == ""
    assert len(err) < 2_000


@pytest.mark.parametrize(
    "words",
    [RUN, ("place", "small.yaml", "--replications", "2"), ("validate", "published", "--row", "V38-alone")],
    ids=lambda words: words[0],
)
def test_a_folder_or_file_that_cannot_be(command: Command, words: tuple[str, ...]) -> None:
    code, _, err = command(*words, "--out", "small.yaml/out")
    assert code == 2
    assert "small.yaml/out" in err
    assert Path("small.yaml").read_text() == SMALL


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nonsense", "must be the address of a scheduler"),
        ("tcp://127.0.0.1", "must be the address"),
        ("tcp://127.0.0.1:99999", "must be the address"),
        ("ftp://127.0.0.1:21", "must be the address"),
        ("tcp://[::1", "must be the address"),
        ("tcp://127.0.0.1:9", "no Dask scheduler answers"),
        ("tcp://" + "a" * 300 + ":8786", "no Dask scheduler answers"),
    ],
    ids=lambda text: text[:24],
)
def test_dask_addresses_that_are_none(address: str, words: str) -> None:
    pytest.importorskip("distributed")
    from simulator.errors import SimulatorError
    from simulator.plan.sweep.workers import dask_cluster

    begun = time.monotonic()
    with pytest.raises(SimulatorError, match=words):
        dask_cluster(address)()
    assert time.monotonic() - begun < 8


def test_a_stranger_at_the_schedulers_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something listens there and speaks otherwise: whatever Dask raises then is one message."""
    distributed = pytest.importorskip("distributed")
    from simulator.errors import Unreachable
    from simulator.plan.sweep import workers

    def refuse(*_: object, **__: object) -> None:
        raise TimeoutError("timed out after 20 s.")

    monkeypatch.setattr(distributed, "Client", refuse)
    monkeypatch.setattr(workers, "_knock", lambda address: None)
    with pytest.raises(Unreachable, match="no Dask scheduler answers"):
        workers.dask_cluster("tcp://127.0.0.1:8786")()


def interrupted(*words: str, begun: Callable[[int], bool]) -> tuple[int, str]:
    """Exit code and standard error of a process that gets Ctrl-C when it has `begun`."""
    process = subprocess.Popen([*START, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 40
    while not begun(process.pid) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    return process.wait(30), process.communicate()[1]


def test_ctrl_c_while_it_starts(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that takes long to load, as on a slow disk."""
    (here / "typer.py").write_text("import pathlib, time\npathlib.Path('loads').touch()\ntime.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{ROOT}")
    assert interrupted("--help", begun=lambda _: Path("loads").exists()) == (-signal.SIGINT, "")


def test_ctrl_c_at_work(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "scipy.py").write_text("import pathlib, time\npathlib.Path('works').touch()\ntime.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{ROOT}")
    code, err = interrupted(*RUN, begun=lambda _: Path("works").exists())
    assert (code, err) == (130, "interrupted: what was not finished is not kept\n")


WORKERS = """
import sys, time
from simulator.plan.sweep.workers import local_processes
if __name__ == "__main__":
    pool = local_processes(1)()
    pool.submit(time.sleep, 0).result()
    print(next(iter(pool._processes)), flush=True)
    pool.submit(time.sleep, 600).result()
"""


@pytest.fixture
def working(here: Path) -> Any:
    """A process with one worker that works, and the worker's id."""
    (here / "work.py").write_text(WORKERS)
    process = subprocess.Popen(
        [sys.executable, "work.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    yield process, int(process.stdout.readline())
    process.kill()
    process.communicate()


def test_workers_end_when_their_parent_is_killed(working: Any) -> None:
    process, worker = working
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(worker)


def test_workers_leave_ctrl_c_to_their_parent(working: Any) -> None:
    """Ctrl-C reaches all processes of a terminal; those that say nothing are not asked."""
    _, worker = working
    os.kill(worker, signal.SIGINT)
    time.sleep(0.2)
    assert _runs(worker)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
