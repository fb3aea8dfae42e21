"""Charts show what the tables hold, tables hold what the summary says, and nothing is fetched when a page is opened."""

import json
import re

import numpy as np
import pytest

from simulator.placement.memory import MemoryUse
from simulator.result import charts, table
from simulator.result.charts import DRAW, chart_files
from simulator.result.critical import PathShare, TokenPath, token_paths
from simulator.result.folder import prediction_tables
from simulator.runtime.record import Span

RING = ["fast", "middle", "slow"]


@pytest.fixture(scope="module")
def tables(prediction):
    return prediction_tables(prediction)


@pytest.fixture(scope="module")
def files(tables):
    return chart_files(tables, "a <b> title", "a & question?")


def drawn(chart) -> list[dict]:
    """All rows that a chart carries."""
    return [row for rows in chart.to_dict()["datasets"].values() for row in rows]


def test_the_bench_plot_shows_each_run(prediction, tables):
    band = tables["bench"].rows["band"]
    rate = 23 / (prediction.times_s[0, -1] - prediction.times_s[0, 0])
    assert [row["run"] for row in band] == [1, 2, 3]
    assert band[1]["median"] == pytest.approx(np.median(rate[1::3]), rel=1e-5)
    assert band[1]["low"] == pytest.approx(np.quantile(rate[1::3], 0.05), rel=1e-5)
    assert len(tables["bench"].rows["worlds"]) == 8 * 3
    assert prediction.summary.tokens_per_s.text("tokens/s") in tables["bench"].title[0]


def test_measured_runs_are_drawn_by_the_same_function():
    """Five measured runs of one cluster: 99 gaps of 100 ms each."""
    times_s = np.tile(0.1 * np.arange(100)[None, :, None], (1, 1, 5)) + 2
    bench = table.bench_table(times_s, 5)
    assert bench.rows["band"] == [{"run": run, "low": 10, "median": 10, "high": 10} for run in range(1, 6)]
    assert bench.rows["worlds"] == []
    assert len(drawn(charts.bench_chart(bench))) == 5
    assert table.inter_token_table(times_s).title == [
        "Half of the tokens follow within 100 ms, 99% within 100 ms"
    ]


def test_one_run_of_one_world_needs_no_interval():
    bench = table.bench_table(np.arange(1.0, 5.0)[None, :, None], 1)
    assert bench.title == ["1 tokens/s"]
    assert [layer["mark"]["type"] for layer in charts.bench_chart(bench).to_dict()["layer"]] == [
        "bar",
        "point",
        "line",
    ]


def test_marked_percentiles_are_those_of_the_summary(prediction, tables):
    shown = tables["inter_token_time"]
    scale = {"ms": 1e-3, "s": 1.0}[shown.unit]
    summary = prediction.summary
    wanted = [summary.inter_token_p50_s, summary.inter_token_p90_s, summary.inter_token_p99_s]
    for mark, estimate in zip(shown.rows["marks"], wanted, strict=True):
        assert mark["median"] * scale == pytest.approx(estimate.median, rel=1e-5)
        assert mark["high"] * scale == pytest.approx(estimate.p95, rel=1e-5)


def test_the_distribution_never_falls(tables):
    for column in ("low", "median", "high"):
        values = [row[column] for row in tables["inter_token_time"].rows["curve"]]
        assert values == sorted(values)


def test_bars_of_where_time_goes_sum_to_the_token(prediction, tables):
    """Up to the parts that are too small to draw."""
    total = sum(row["share"] for row in tables["where_time_goes"].rows["parts"])
    assert 0.99 < total < 1.00001  # rows are rounded to six digits
    assert tables["where_time_goes"].title == [prediction.bottleneck.sentence]


def test_devices_come_in_ring_order_then_hops(tables):
    order = tables["where_time_goes"].order
    assert order[:3] == RING
    hops = [tuple(RING.index(end) for end in place.split(" -> ")) for place in order[3:]]
    assert len(hops) >= 4
    assert hops == sorted(hops)
    assert tables["memory"].order == RING


def test_many_small_hops_share_a_bar():
    shares = [PathShare(kind="compute", where="a", share=0.5, seconds_per_token=0.5)]
    shares += [
        PathShare(kind="hop", where=f"a -> {i:02}", share=(20 - i) / 420, seconds_per_token=(20 - i) / 420)
        for i in range(20)
    ]
    shown = table.where_table(shares, ["a"], "finding", "basis")
    assert len(shown.order) == 1 + 8 + 1
    assert shown.order[-1] == "12 other hops"
    assert sum(row["share"] for row in shown.rows["parts"]) == pytest.approx(1)


def path(token: int, *parts: tuple[str, str, float]) -> TokenPath:
    """A token whose path takes these (kind, where, seconds)."""
    spans = tuple(Span(kind, where, token, 0.0, seconds, -1) for kind, where, seconds in parts)
    return TokenPath(0, token, 0.0, sum(part[2] for part in parts), spans)


def test_the_longest_part_counts_spans_of_one_place_together():
    hop, compute = ("hop", "a -> b", 0.2), ("compute", "a", 0.3)
    paths = [path(1, compute, hop, hop), path(2, compute)]
    shown = table.slowest_table(paths, ["a", "b"])
    assert shown.rows["points"] == [
        {"token": 2, "part": "hop a -> b (50%)", "duration": 400, "drawn": 400},
        {"token": 3, "part": "a compute (50%)", "duration": 300, "drawn": 300},
    ]
    assert shown.order == ["a compute (50%)", "hop a -> b (50%)"]
    assert shown.unit == "ms"


def test_an_outlier_is_drawn_at_the_edge_and_said():
    shown = table.slowest_table(
        [path(i, ("compute", "a", 9.0 if i == 50 else 0.1)) for i in range(100)], ["a"]
    )
    outlier = shown.rows["points"][50]
    assert outlier["duration"] == pytest.approx(9000)
    assert outlier["drawn"] == pytest.approx(300)
    assert "1 at the upper edge took longer, up to 9 s" in " ".join(shown.subtitle)


def test_a_long_reply_is_thinned_and_says_so():
    shown = table.slowest_table([path(i, ("compute", "a", 0.1)) for i in range(2000)], ["a"])
    assert len(shown.rows["points"]) == 500
    assert "one token in 4" in " ".join(shown.subtitle)


def test_rare_parts_share_the_last_colour():
    ring = [f"d{i}" for i in range(9)]
    shown = table.slowest_table([path(i, ("compute", f"d{i % 9}", 0.1)) for i in range(90)], ring)
    assert len(shown.order) == len(charts.PALETTE)
    assert shown.order[-1] == "other parts (33%)"


def test_a_timeline_without_spans_is_refused():
    with pytest.raises(ValueError, match="at least two tokens"):
        table.slowest_table([], ["a"])


def test_shares_in_the_legend_sum_to_one(prediction, tables):
    points = tables["slowest_stage"].rows["points"]
    assert len(points) == len(token_paths(prediction.replay)) == 23
    assert {row["part"] for row in points} <= set(tables["slowest_stage"].order)


def use(device: str, total: float, cap: float) -> MemoryUse:
    return MemoryUse(
        device=device,
        layers=1,
        weights_bytes=total - 1e9,
        kv_bytes=1e9,
        embedding_bytes=0,
        head_bytes=0,
        overhead_bytes=0,
        total_bytes=total,
        cap_bytes=cap,
    )


def test_memory_beyond_the_cap_is_said():
    shown = table.memory_table([use("a", 3e9, 8e9), use("b", 5e9, 4e9)])
    assert shown.title[0].startswith("b is the fullest: 5.0 of 4.0 GB; what does not fit is re-read")
    assert shown.rows["caps"][1] == {"device": "b", "cap": 4, "end": 5, "label": "5.0 of 4.0 GB, pages"}
    assert {row["part"] for row in shown.rows["parts"]} == {"layers", "KV cache"}


def test_bars_start_at_zero_and_axes_name_their_units(tables):
    for name in ("where_time_goes", "memory"):
        spec = DRAW[name](tables[name]).to_dict()
        x = spec["layer"][0]["encoding"]["x"]
        assert x["scale"]["domain"][0] == 0
        assert re.search(r"\((ms|s|GB)\)$", x["title"])
        assert spec["layer"][0]["encoding"]["y"]["sort"] == tables[name].order


def test_every_chart_has_a_finding_and_a_description(tables):
    assert list(DRAW) == list(table.CHART_NAMES) == list(tables)
    for name, draw in DRAW.items():
        spec = draw(tables[name]).to_dict()
        assert spec["title"]["text"] == tables[name].title
        assert tables[name].title[0] in spec["description"]


def test_pictures_are_pictures(files):
    for name in table.CHART_NAMES:
        assert files[f"charts/{name}.svg"].startswith(b"<svg")
        assert files[f"charts/{name}.png"].startswith(b"\x89PNG")
        assert b"NaN" not in files[f"charts/{name}.svg"]
        assert b"undefined" not in files[f"charts/{name}.svg"]


def test_the_page_fetches_nothing(files):
    page = files["charts.html"].decode()
    own = page[: page.index("<script>")] + page[page.rindex("<body>") :]
    assert "default-src 'none'" in own
    for reach in ("src=", "href=", "@import", "url(", "fetch(", "import "):
        assert reach not in own
    assert page.count("<script>") == page.count("</script>") == 2
    assert "a &lt;b&gt; title" in own
    assert "a &amp; question?" in own


def test_text_in_a_chart_cannot_end_its_script(tables):
    evil = table.ChartTable(["</script><b>"], [], tables["memory"].rows, tables["memory"].order, "GB")
    page = chart_files({"memory": evil}, "t", "q")["charts.html"].decode()
    specs = re.search(r"const charts = (.*);\n", page)
    assert page.count("</script>") == 2
    assert json.loads(specs[1])["memory"]["title"]["text"] == ["</script><b>"]


def test_an_unknown_chart_is_refused(tables):
    with pytest.raises(KeyError, match="pie"):
        chart_files({"pie": tables["memory"]}, "t", "q")
