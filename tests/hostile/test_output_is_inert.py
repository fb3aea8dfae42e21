"""Text from outside is shown, on a terminal, in Markdown, on pages and in spreadsheets, and obeyed nowhere."""

from __future__ import annotations

import ast
import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from calibrate.benchmarks.device import fragment
from calibrate.report import html_report
from sim.console import InertConsole, progress_here
from sim.main import main
from simulator.files import dumps, loads
from simulator.files.inert import OBEYED, csv_text, markdown_text, visible, yaml_comment
from simulator.result.drawing import POLICY, html_page
from simulator.scenario import Scenario
from tests.test_cli import SMALL

ROOT = Path(__file__).parents[2]
HOSTILE = "[/bold] [red]x\x1b]0;owned\x07 \x1b[2J\r\u202egnp.exe :smile: <img src=x onerror=alert(1)>"
ACTING = {chr(code) for code in OBEYED} - {"\n", "\t"}


@given(st.text())
def test_nothing_that_acts_is_left_and_the_rest_is_untouched(text: str) -> None:
    shown = visible(text)
    assert not ACTING & set(shown)
    assert shown == text or ACTING & set(text)
    assert visible(shown) == shown


def test_a_console_prints_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """In a sentence, in a table, as a heading: neither markup nor emoji nor codes for the terminal."""
    from rich.table import Table

    table = Table(HOSTILE, title=HOSTILE, box=None, width=240)
    table.add_row(HOSTILE)
    console = InertConsole(pipe_width=240)
    console.print(HOSTILE, table)
    console.marked(HOSTILE, "bold", HOSTILE)
    out = capsys.readouterr().out
    assert not ACTING & set(out)
    assert all(out.count(part) == 6 for part in ("[/bold]", "[red]x", r"\x1b]0;owned", ":smile:"))


def test_what_rich_itself_adds_still_reaches_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(list[str]):
        def write(self, text: str) -> int:
            self.append(text)
            return len(text)

        def flush(self) -> None: ...

        def isatty(self) -> bool:
            return True

    screen: Any = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    InertConsole().marked("head", "bold", "\x1b[2J")
    assert "".join(screen) == "\x1b[1mhead\x1b[0m\\x1b[2J\n"


def test_a_bar_does_not_obey_its_description(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_here() as bar:
        bar.add_task(HOSTILE, total=2)
    assert "[/bold]" in capsys.readouterr().err


def test_only_one_place_makes_consoles_and_nobody_writes_markup() -> None:
    makers, marked = [], []
    for path in (path for package in ("sim", "live", "calibrate") for path in (ROOT / package).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call | ast.ClassDef):
                named = [node.func] if isinstance(node, ast.Call) else node.bases
                names = {ast.unparse(one).rpartition(".")[2] for one in named} & {"Console", "Progress"}
                makers += [f"{path.relative_to(ROOT)}: {name}" for name in names]
        marked += [str(path) for word in ("[/bold]", "[/yellow]", "from_markup") if word in text]
    assert (makers, marked) == (["sim/console.py: Console", "sim/console.py: Progress"], [])


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sim", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_a_question_in_brackets_is_printed_and_what_it_says_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL.replace("How fast is a small ring?", '"[/bold] [red]x :smile:"'))
    assert command(monkeypatch, "run", "small.yaml", "--no-charts", "--replications", "2") == 0
    assert "small  [/bold] [red]x :smile:" in capsys.readouterr().out


def test_an_argument_is_shown_and_not_obeyed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever says it: our own errors, and those of the library that reads the command line."""
    for words in (("run", f"absent{HOSTILE}"), (HOSTILE,), ("run", f"--{HOSTILE}")):
        assert command(monkeypatch, *words) == 2
        err = capsys.readouterr().err
        assert not ACTING & set(err)
        assert r"\x1b[2J" in err


HTML = MarkdownIt("commonmark", {"html": True}).enable("table")  # as lax as readers may be
MARKUP = (
    "<img src=x>",
    "**b**",
    "`c`",
    "[l](http://x)",
    "![i](http://x)",
    "a|b",
    "# h",
    "- i",
    "\n\n# h",
    "_e_",
)


@pytest.mark.parametrize("markup", MARKUP)
def test_markdown_shows_what_a_name_holds(markup: str) -> None:
    plain = HTML.render(f"- {markdown_text(markup)}\n\n| head |\n|---|\n| {markdown_text(markup)} |\n")
    assert not any(tag in plain for tag in ("<img", "<strong", "<code", "<a ", "<h1", "<em"))
    assert plain.count("<li>") == plain.count("<td>") == 1
    assert plain.count("<ul>") == 1


def test_names_that_reports_hold_stay_readable() -> None:
    for name in ("five_devices", "MacBook Air M4 -> Pixel", "1.31 [0.98, 1.82] tokens/s", "~5 %", "a & b"):
        assert markdown_text(name) == name


def test_pages_reach_nothing_and_hold_no_html_of_others() -> None:
    page = html_report(HOSTILE, f"# {HOSTILE}\n\n[x](javascript:alert(1))", ())
    assert f'http-equiv="Content-Security-Policy" content="{POLICY}"' in page
    assert POLICY.startswith("default-src 'none'")
    assert "<img" not in page
    assert 'href="javascript' not in page
    assert "&lt;script&gt;" in html_page("<script>", "", style="")


def test_every_page_is_made_where_the_policy_is() -> None:
    makers = [
        str(path.relative_to(ROOT))
        for package in ("sim", "simulator", "live", "calibrate")
        for path in (ROOT / package).rglob("*.py")
        if "<html" in path.read_text(encoding="utf-8")
    ]
    assert makers == ["simulator/result/drawing.py"]


def test_spreadsheets_execute_no_cell() -> None:
    cells = ["=1+1", "+cmd|'/C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "plain", "-0.25", -0.25, 3]
    records = [{"=head": cell} for cell in cells]
    found = [row[0] for row in csv.reader(csv_text(records).splitlines())][1:]
    assert found == [
        "'=1+1",
        "'+cmd|'/C calc'!A0",
        "'-2+3",
        "'@SUM(A1)",
        "'\t=1",
        "plain",
        "-0.25",
        "-0.25",
        "3",
    ]


def test_a_comment_stays_one() -> None:
    """A line break in what another tool calls its model would begin a line of YAML."""
    for end in "\n\r\x0b\x0c\x1c\x85\u2028":
        lines = yaml_comment(f"model x{end}devices: {{evil: 1}}").split("\n")
        assert all(line.startswith("# ") for line in lines if line)
    scenario = loads(SMALL, Scenario)
    assert loads(dumps(scenario, "a\x1b[31m\u2028name: other"), Scenario) == scenario
    assert fragment([], [Path("a\ndevices: {evil: 1}")]).count("\ndevices:") == 1


def test_vega_gets_names_as_data_and_not_as_an_expression() -> None:
    from simulator.result import charts

    text = Path(str(charts.__file__)).read_text(encoding="utf-8")
    assert text.count("indexof({json.dumps(list(present))}") == text.count("indexof(") == 2
    assert json.loads(json.dumps(["'\"\\"])) == ["'\"\\"]
