"""Vega-Lite specs as files: an SVG and a PNG of each, and pages that need no network.

All that is drawn goes through here, so that every picture has the same colours and fonts, and every page the
same Content-Security-Policy. Colours are those of Okabe and Ito, which people with any kind of colour
blindness can tell apart (https://jfly.uni-koeln.de/color/).
"""

from __future__ import annotations

import contextlib
import html
import json
import os
from collections.abc import Callable, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import vl_convert

from simulator.errors import SimulatorError
from simulator.files import make_folder, write_bytes_atomically
from simulator.files.cache import cache_folder
from simulator.files.ours import mark, refuse_others

__all__ = [
    "CONFIG",
    "PALETTE",
    "Spec",
    "chart_files",
    "html_page",
    "picture_files",
    "save_charts",
    "save_pictures",
]

Spec = dict[str, Any]
T = TypeVar("T")
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, RED, GREY, BLACK = "#56B4E9", "#D55E00", "#8C8C8C", "#000000"
PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, RED, GREY)  # the last is for what is left over
FILES_TO_DRAW = 14  # opened by the first drawing, and kept: found by trying, with less it panics
PNG_SCALE = 2.0  # pixels per unit, for dense screens

CONFIG: Spec = {
    "background": "white",
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 12,
        "titleFontSize": 13,
        "titleFontWeight": "normal",
        "gridColor": "#E4E4E4",
        "labelLimit": 220,
        "titlePadding": 8,
        "tickCount": 8,
    },
    "legend": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelLimit": 300},
    "title": {
        "anchor": "start",
        "fontSize": 15,
        "subtitleFontSize": 12,
        "subtitleColor": "#555555",
        "offset": 12,
        "frame": "group",
    },
}

# The page may run its own scripts (Vega compiles expressions, hence unsafe-eval) and reach nothing else.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
CHARTS_STYLE = """
body { font-family: sans-serif; max-width: 860px; margin: 2em auto; padding: 0 1em; color: #222 }
figure { margin: 2.5em 0; overflow-x: auto }
"""
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{style}</style>
{head}</head>
<body>
{body}
</body>
</html>
"""
CHARTS_BODY = """<h1>{title}</h1>
<p>{text}</p>
{figures}
<script>
const charts = {specs};
const options = {{renderer: "svg", actions: {{export: true, source: false, compiled: false, editor: false}}}};
for (const [name, spec] of Object.entries(charts)) vegaEmbed("#" + name, spec, options);
</script>"""


def chart_files(specs: Mapping[str, Spec], title: str, text: str) -> dict[str, bytes]:
    """`charts.html` with all charts, and a picture of each below `charts/`; `text` stands under its title."""
    looks = {name: _with_looks(spec) for name, spec in specs.items()}
    pictures = {f"charts/{name}": data for name, data in picture_files(looks).items()}
    return {"charts.html": _charts_page(looks, title, text).encode(), **pictures}


def picture_files(specs: Mapping[str, Spec]) -> dict[str, bytes]:
    """`<name>.svg` and `<name>.png` of each Vega-Lite spec, in the house's fonts and colours."""
    files = {}
    for name, spec in specs.items():
        svg = _drawn(vl_convert.vegalite_to_svg, _with_looks(spec))
        files[f"{name}.svg"] = svg.encode()
        # from the SVG, which is laid out already: from the spec, the layout would run a second time
        files[f"{name}.png"] = _drawn(vl_convert.svg_to_png, svg, scale=PNG_SCALE)
    return files


def _drawn(draw: Callable[..., T], *args: Any, **options: Any) -> T:
    """What vl-convert draws; raises SimulatorError where it cannot, of which it panics."""
    try:
        _room_to_draw()
        return draw(*args, **options)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of Rust is no Exception
        raise SimulatorError(
            f"the charts cannot be drawn ({error}); let this shell open more files (ulimit -n 256), or leave "
            "them out (--no-charts)"
        ) from error


@cache
def _room_to_draw() -> None:
    """Whether so many files can be opened: the threads of vl-convert would complain for themselves."""
    with contextlib.ExitStack() as held:
        for _ in range(FILES_TO_DRAW):
            held.enter_context(Path(os.devnull).open("rb"))


def save_pictures(specs: Mapping[str, Spec], folder: Path) -> list[Path]:
    """Write `picture_files` to `folder`, made if it is missing; the paths. Raises SimulatorError."""
    make_folder(folder)
    files = picture_files(specs)
    _write_ours(folder, files)
    return [folder / name for name in files]


def save_charts(specs: Mapping[str, Spec], title: str, text: str, folder: Path) -> None:
    """Write `chart_files` to `folder`, made if it is missing; raises SimulatorError."""
    make_folder(folder / "charts")
    _write_ours(folder, chart_files(specs, title, text))


def _write_ours(folder: Path, files: Mapping[str, bytes]) -> None:
    refuse_others(folder, files)
    mark(folder, files)
    for name, data in files.items():
        write_bytes_atomically(folder / name, data)


def html_page(title: str, body: str, *, style: str, head: str = "") -> str:
    """A whole page that reaches nothing; `title` is escaped here, `body` and `head` are HTML already."""
    return PAGE.format(policy=POLICY, title=html.escape(title), style=style, head=head, body=body)


def _with_looks(spec: Spec) -> Spec:
    # over what the spec brings: Altair puts its own theme there
    return {**spec, "config": CONFIG}


def _charts_page(specs: Mapping[str, Spec], title: str, text: str) -> str:
    body = CHARTS_BODY.format(
        title=html.escape(title),
        text=html.escape(text),
        figures="\n".join(f'<figure id="{html.escape(name)}"></figure>' for name in specs),
        # in a script element only "<" could end it, so that one is escaped
        specs=json.dumps(specs, separators=(",", ":")).replace("<", "\\u003c"),
    )
    return html_page(title, body, style=CHARTS_STYLE, head=f"<script>{_vega()}</script>\n")


def _vega() -> str:
    """Vega, Vega-Lite and vega-embed as one script.

    vl-convert bundles them anew at each call, which takes longer than all else that `sim run` does. So the
    result is kept in the user's cache: a file per version, behind its own digest, because a damaged one would
    leave every later page blank. Where nothing can be kept, it is bundled again.
    """
    file: Path | None = None
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: nobody knows the home folder
        version = vl_convert.__version__  # type: ignore[attr-defined]  # its stub lacks this too
        file = cache_folder("vega") / f"{version}.js"
        digest, _, script = file.read_bytes().partition(b"\n")
        if sha256(script).hexdigest().encode() == digest:
            return script.decode()
    bundle: str = _drawn(vl_convert.javascript_bundle)
    if file is not None:
        with contextlib.suppress(SimulatorError):
            write_bytes_atomically(file, f"{sha256(bundle.encode()).hexdigest()}\n{bundle}".encode())
    return bundle
