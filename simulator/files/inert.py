"""Text from outside as text: shown on a terminal, in Markdown, in a spreadsheet, obeyed in none of them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence

__all__ = ["csv_text", "markdown_text", "visible", "yaml_comment"]

# What a terminal obeys (C0, DEL, C1) or what turns the order of letters around, so that a name reads as
# another (the bidirectional controls of Unicode 16, annex 9, table 4), and marks that nobody sees at all.
OBEYED = (
    *range(0x20),
    *range(0x7F, 0xA0),
    0x061C,
    *range(0x200E, 0x2010),
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
    0xFEFF,
    *range(0xE0000, 0xE0080),
)
SHOWN = {code: ascii(chr(code))[1:-1] for code in OBEYED if chr(code) not in "\n\t"}
# What begins something in CommonMark 0.31 or a table of GitHub's; a backslash in front makes it stand for
# itself (section 2.4). An underscore within a word begins nothing, and names are full of them.
MARKDOWN = re.compile(r"([\\`*<|]|\](?=[(\[:])|(?<!\w)_|_(?!\w)|&(?=[#\w])|^[#+>=-](?= |$))")
# With these a cell begins that Excel, LibreOffice and Google Sheets take for a formula (OWASP: CSV injection)
FORMULA = tuple("=+-@\t\r＝＋－＠")


def visible(text: str) -> str:
    r"""The text with every character that would act spelt out; line breaks and tabs stay.

    >>> visible("\x1b[2Jname\r")
    '\\x1b[2Jname\\r'
    """
    return text.translate(SHOWN)


def markdown_text(text: str) -> str:
    r"""The text for one cell or line of Markdown: no markup, no HTML, no link, no second line.

    >>> markdown_text("five_devices|b <img> [x](y)")
    'five_devices\\|b \\<img> [x\\](y)'
    """
    return MARKDOWN.sub(r"\\\1", visible(" ".join(text.split())))


def yaml_comment(text: str) -> str:
    """The text as lines of a YAML comment, whatever it takes for the end of a line."""
    return "".join(f"# {visible(line)}".rstrip() + "\n" for line in text.splitlines())


def csv_text(records: Sequence[Mapping[str, object]]) -> str:
    """Records of the same keys as a CSV file with a head.

    A text that a spreadsheet would execute gets a quote in front, by which spreadsheets mark text.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in record.items()} for record in records)
    return text.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
