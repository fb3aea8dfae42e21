"""The one console of the command line: markup comes from here alone, and text from outside is text."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from sim.terminal import raw
from simulator.files.inert import visible

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType
    from rich.progress import Progress
    from rich.segment import Segment

__all__ = ["InertConsole", "console_here", "progress_here"]

PIPE_WIDTH = 120  # of a file or a pipe, which have no width of their own


class InertConsole(Console):
    """Prints strings as they are: no markup, no emoji, no highlights; control characters are shown."""

    def __init__(
        self, *, stderr: bool = False, soft_wrap: bool = False, pipe_width: int = PIPE_WIDTH
    ) -> None:
        stream = raw(sys.stderr if stderr else sys.stdout)
        width = None if stream.isatty() else pipe_width
        super().__init__(
            file=stream, markup=False, emoji=False, highlight=False, width=width, soft_wrap=soft_wrap
        )

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Every text on its way to the terminal, and none of rich's own codes, which come after this."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))

    def marked(self, head: str, style: str, rest: str = "") -> None:
        """Print a line whose beginning stands out."""
        self.print(Text.assemble((head, style), rest))


def console_here(*, soft_wrap: bool = False, pipe_width: int = PIPE_WIDTH) -> InertConsole:
    """The terminal as it is, and `pipe_width` columns where there is none to ask (a file, a pipe)."""
    return InertConsole(soft_wrap=soft_wrap, pipe_width=pipe_width)


def progress_here(**options: bool | float) -> Progress:
    """A bar on standard error, whose description is no markup."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=InertConsole(stderr=True),
        # what is printed meanwhile goes its own way: rich would obey the codes in it
        redirect_stdout=False,
        redirect_stderr=False,
        **options,  # type: ignore[arg-type]
    )
