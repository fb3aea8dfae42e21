"""Pictures and pages: one look, one policy, and the script of a page bundled once."""

import vl_convert

from simulator.result import drawing

SPEC = {
    "mark": "bar",
    "data": {"values": [{"a": "x", "b": 1}]},
    "encoding": {"x": {"field": "a", "type": "nominal"}, "y": {"field": "b", "type": "quantitative"}},
}


def test_pictures_have_the_looks_of_the_house():
    assert drawing.picture_files({"one": SPEC}) == drawing.picture_files(
        {"one": {**SPEC, "config": {"background": "black"}}}
    )


def test_a_folder_that_is_missing_is_made(tmp_path):
    paths = drawing.save_pictures({"one": SPEC}, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["one.svg", "one.png"]
    assert paths[1].read_bytes().startswith(b"\x89PNG")


def bundles(monkeypatch) -> list[str]:
    """Bundling made quick; the list grows by one with each."""
    made: list[str] = []
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda: made.append("var vega;") or made[-1])
    return made


def test_the_script_is_bundled_once_and_again_when_what_was_kept_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("SIM_CACHE", str(tmp_path))
    made = bundles(monkeypatch)
    pages = [drawing.chart_files({"one": SPEC}, "t", "q")["charts.html"] for _ in range(2)]
    assert pages[0] == pages[1]
    assert b"<script>var vega;</script>" in pages[0]
    assert len(made) == 1
    (kept,) = (tmp_path / "vega").iterdir()
    kept.write_bytes(kept.read_bytes()[:-3])
    assert drawing.chart_files({"one": SPEC}, "t", "q")["charts.html"] == pages[0]
    assert len(made) == 2


def test_a_cache_that_cannot_be_written_costs_time_and_no_page(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SIM_CACHE", str(tmp_path / "file"))
    made = bundles(monkeypatch)
    assert b"var vega;" in drawing.chart_files({"one": SPEC}, "t", "q")["charts.html"]
    assert len(made) == 1


def test_a_page_escapes_its_title_and_reaches_nothing():
    page = drawing.html_page("</title><script>", "<p>body</p>", style="")
    assert "<script>" not in page
    assert "default-src 'none'" in page
