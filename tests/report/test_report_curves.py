"""Curves as a page: every method is drawn in every panel it is in, and the page needs no network."""

from __future__ import annotations

import json
import re

import pytest

from onnxopt.report.curves import Chart, Curve, Panel, Point, curves_figure, curves_page


def _points(*heights: float) -> tuple[Point, ...]:
    return tuple(Point(f"{80 - 10 * i} %", 80.4 - 10 * i, y, f"<told> {i}") for i, y in enumerate(heights))


@pytest.fixture
def found() -> Chart:
    first = Panel(
        "small</script>", (Curve("ours & good", _points(90.0, 88.25)), Curve("peer", _points(70.0), True)), 91
    )
    second = Panel("large", (Curve("ours & good", _points(60.0, 50.0)), Curve("other", _points(61.0))))
    return Chart("By criterion", "Higher is better.", "MACs left, %", "accuracy, %", (first, second))


def test_panels_stand_beside_each_other_and_share_names_and_colours(found: Chart) -> None:
    drawn = curves_figure(found)
    traces = {(trace["name"], trace["xaxis"]): trace for trace in drawn["data"]}
    assert set(traces) == {("ours &amp; good", "x1"), ("peer", "x1"), ("ours &amp; good", "x2"), ("other", "x2")}
    first, again = traces["ours &amp; good", "x1"], traces["ours &amp; good", "x2"]
    assert first["line"] == again["line"] != traces["other", "x2"]["line"]
    assert (first["showlegend"], again["showlegend"]) == (True, False)
    assert (first["x"], first["y"]) == ([70.4, 80.4], [88.25, 90.0])
    left, right = (drawn["layout"][axis]["domain"] for axis in ("xaxis1", "xaxis2"))
    assert 0 == left[0] < left[1] < right[0] < right[1] <= 1
    assert [(line["yref"], line["y0"], line["x1"]) for line in drawn["layout"]["shapes"]] == [("y1", 91, left[1])]
    assert traces["peer", "x1"]["line"]["dash"] == "dash"


def test_the_page_has_tables_and_charts_and_needs_no_network(found: Chart) -> None:
    page = curves_page([found, found], title="t", headline="<Ours> leads", subtitle="here", notes=["one photo only"])
    assert page.count('class="chart"') == 2
    told = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=", told)
    for text in (
        "&lt;Ours&gt; leads",
        "ours &amp; good",
        "90.0 at 80.4",
        "88.2 at 70.4",
        "one photo only",
        "<th>large",
    ):
        assert text in told
    assert '<tr class=""><td>peer</td><td class=number>70.0 at 80.4</td><td class=number>-</td></tr>' in told


def test_the_best_of_any_column_is_marked(found: Chart) -> None:
    told = curves_page([found], title="t", headline="h", subtitle="s")
    marked = re.findall(r'<tr class="best"><td>([^<]*)</td>', told)
    assert marked == ["ours &amp; good", "ours &amp; good", "other"]


def test_names_cannot_end_the_script(found: Chart) -> None:
    page = curves_page([found], title="t", headline="h", subtitle="s")
    line = next(line for line in page.splitlines() if line.startswith("const figures = "))
    assert "</script>" not in line
    assert json.loads(line[len("const figures = ") : -1])["curves-0"]["layout"]["annotations"]


def test_more_curves_than_colours_still_differ() -> None:
    curves = tuple(Curve(f"method {i}", _points(1.0 + i)) for i in range(15))
    drawn = curves_figure(Chart("h", "t", "x", "y", (Panel("p", curves),)))
    assert len({(trace["line"]["color"], trace["line"]["dash"]) for trace in drawn["data"]}) == 15
