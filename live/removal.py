"""Take a device of a cluster away in the middle of a reply, by the user's command or by hand when asked."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from live.measure import MeasureOptions
from live.recovery import require_inside
from simulator.errors import LiveError, did_you_mean
from simulator.scenario import Scenario

__all__ = ["DeviceRemoval", "require_device"]

# an `ssh` to a device that is busy takes seconds; a command that never ends must not hold the watch
COMMAND_S = 60.0


def require_device(scenario: Scenario, device: str, at_token: int) -> None:
    """Raise LiveError for a device that the scenario has not, or a token at which no reply can lose one."""
    if device not in scenario.devices:
        hint = did_you_mean(device, list(scenario.devices))
        raise LiveError(
            f"no device {device!r} in the scenario{hint}; its devices are {', '.join(scenario.devices)}"
        )
    require_inside(at_token, scenario.workload.output_tokens)


@dataclass
class DeviceRemoval:
    """Has the device taken away when the time has come, without holding up the tokens."""

    device: str
    at_token: int
    command: str | None
    say: Callable[[str], None]
    _asked_ns: int = 0
    _story: str = ""
    _thread: threading.Thread | None = field(default=None, repr=False)

    def watching(self, options: MeasureOptions) -> MeasureOptions:
        """The options of a measurement that tells it of each token, and is told what was done."""
        fault = {
            "device": self.device,
            "at_token": self.at_token,
            "how": self.command or "by hand, when asked",
        }
        return replace(
            options,
            say=self.say,
            on_token=self.hear,
            extra={**options.extra, "fault": fault},
            remarks=self.told,
        )

    def hear(self, run: int, chat: int, token: int) -> None:
        """A token came."""
        # a second reply shows what is left, and loses nobody
        if run or token + 1 != self.at_token:
            return
        self._asked_ns = time.monotonic_ns()
        if self.command is None:
            self.say(f"take {self.device} away now: pull its plug, or stop EXO on it; watching the reply")
            return
        self.say(f"token {self.at_token}: {self.command}")
        # in a thread: tokens that come while the command runs must be stamped in time
        self._thread = threading.Thread(target=self._run, args=(self.command,), daemon=True)
        self._thread.start()

    def _run(self, command: str) -> None:
        """Run the user's own command line, as their shell would."""
        try:
            done = subprocess.run(
                command,
                # the line is the user's own, with their pipes and variables
                shell=True,
                capture_output=True,
                text=True,
                timeout=COMMAND_S,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            end = f"did not end within {COMMAND_S:g} s and was killed"
        else:
            end = f"ended with exit code {done.returncode}"
            if done.returncode:
                end += f": {' '.join((done.stderr or done.stdout).split())[:300] or 'it says nothing'}"
        self._story = (
            f"`{command}` {end} {(time.monotonic_ns() - self._asked_ns) / 1e9:.2f} s after token "
            f"{self.at_token}"
        )
        self.say(self._story)

    def told(self) -> tuple[str, ...]:
        """What was done to the device, for the file."""
        if not self._asked_ns:
            return (f"the reply ended before token {self.at_token}, so nothing was done to {self.device}",)
        if self._thread is not None:
            self._thread.join(COMMAND_S)
        where = "the fault is taken to be at the last token before the silence"
        if self.command is None:
            return (
                f"{self.device} was to be taken away by hand at token {self.at_token}; {where}, so detect "
                "holds no time of the operator",
            )
        return (f"{self._story or f'`{self.command}` has not ended'}; {where}",)
