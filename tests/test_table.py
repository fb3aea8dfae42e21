"""Tables of the command line: words stay whole at every width, and the least wanted columns go first."""

from rich.console import Console

from sim.table import print_table

HEADS = ("device", "kind", "ms per token")
ROWS = (
    ("macbook", "MacBook Air M4", "177 [108, 214]"),
    ("laptop", "Linux laptop dual channel", "328 [221, 448]"),
)


def printed(width, rows=ROWS):
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        left_out = print_table(console, HEADS, rows, wraps=("kind",), drops=("kind",))
    return capture.get(), left_out


def test_no_width_cuts_a_word_or_passes_the_terminal():
    words = set(" ".join((*HEADS, *ROWS[0], *ROWS[1])).split())
    for width in range(24, 70):
        text, left_out = printed(width)
        assert max(map(len, text.splitlines())) <= width
        assert set(text.split()) <= words
        assert {"macbook", "laptop", "[108,", "[221,"} <= set(text.split())
        assert ("MacBook" in text) == (left_out == ())


def test_a_column_shrinks_before_it_goes():
    assert printed(50)[1] == ()
    assert printed(41)[1] == ()  # 7 + 14 + 14 and two gaps are 39
    assert printed(38)[1] == ("kind",)
    assert len(printed(41)[0].splitlines()) > len(printed(60)[0].splitlines())


def test_groups_share_their_columns():
    text, _ = printed(60, {"as asked": ROWS[:1], "lesser": ROWS[1:]})
    lines = text.splitlines()
    assert [line.strip() for line in lines if line.strip() in ("as asked", "lesser")] == [
        "as asked",
        "lesser",
    ]
    assert next(line for line in lines if "177" in line).index("177") == next(
        x for x in lines if "328" in x
    ).index("328")
