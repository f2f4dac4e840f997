"""What ``explain`` found, as a page and for a terminal."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from onnxopt.context import Missed
from onnxopt.explain.layers import LayerFinding, LayersExplained
from onnxopt.explain.portability import Portability, Saturation
from onnxopt.report.explained import explained_table
from onnxopt.report.explained_page import explained_page


@pytest.fixture
def found() -> LayersExplained:
    layers = (
        LayerFinding(("/first</script>",), "Conv", 0.3, 0.2, 21.5, "outliers in 'x' & <more>", 40.25),
        LayerFinding(("/second", "/third"), "MatMul", 0.6, -0.01, 33.0),
        LayerFinding(("/fourth",), "Conv", 0.1, 0.05, 200.0),
    )
    saturating = (
        Saturation("/first</script>", "Conv", 0.064, 6.0, 35.5, 1.0),
        Saturation("/second", "MatMul", 0.00031, 52.0, 41.0, 0.5),
        Saturation("/fourth", "Conv", 0.0, 200.0, 38.0, 0.0),
    )
    alone = Missed("saturation", "/alone", "it looks at each channel alone", "/alone")
    left = (Missed("quantize-mixed", "/scaled", "its product or its bias is scaled", "/scaled"),)
    return LayersExplained(19.5, layers, left, Portability(saturating, (alone,), ("/first</script>",), 8))


def _page(found: LayersExplained) -> str:
    return explained_page(found, "net/<model>.onnx", "a machine")


def _terminal(found: LayersExplained) -> str:
    console = Console(width=220, record=True, markup=False, file=io.StringIO())
    console.print(explained_table(found, Path("layers.html")))
    return console.export_text()


def test_the_page_tells_everything_and_needs_no_network(found: LayersExplained) -> None:
    page = re.sub(r"<script>.*?</script>", "", _page(found), flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=", page)
    for text in (
        "net/&lt;model&gt;.onnx on a machine",
        "the lowest output keeps 19.5 dB",
        "/first&lt;/script&gt;",
        "outliers in &#x27;x&#x27; &amp; &lt;more&gt;",
        "40.2 dB",
        "/second and 1 after it",
        "exact",
        "its product or its bias is scaled",
        "sums saturate in 2 of 3 layers",
        "6.4 %",
        "0.031 %",
        "--narrow /first&lt;/script&gt;",
        "it looks at each channel alone",
    ):
        assert text in page
    assert page.count("7-bit weights</td>") == 1


def test_names_from_the_model_cannot_end_the_script(found: LayersExplained) -> None:
    page = _page(found)
    figures = page[page.index("const figures = ") :]
    assert "</script>" not in figures[: figures.index("for (const")]
    assert "first" in figures


def test_the_terminal_tells_the_same(found: LayersExplained) -> None:
    told = _terminal(found)
    for text in ("19.5 dB", "sums saturate in 2 of 3", "--narrow /first", "1 not simulated: it looks", "layers.html"):
        assert text in told
    assert "made up" not in told
    assert "made up" in _terminal(replace(found, synthetic=True))
    assert "made up" in _page(replace(found, synthetic=True))


def test_of_a_quantized_model_saturation_alone_is_told(found: LayersExplained) -> None:
    found = replace(found, sqnr_db=None, layers=(), left=())
    assert "rounded, the lowest output" not in _terminal(found) + _page(found)
    assert 'id="sensitivity"' not in _page(found)
    assert "On x86 CPUs without VNNI sums saturate in 2 of 3 layers" in _page(found)


def test_where_nothing_saturates_no_chart_is_drawn_and_it_says_so(found: LayersExplained) -> None:
    fine = replace(found.portability, layers=found.portability.layers[2:], narrow=())
    found = replace(found, portability=fine)
    assert 'id="saturation"' not in _page(found)
    for told in (_page(found), _terminal(found)):
        assert "no sum saturates; in 1 of 1 layers none can" in told
    nothing = replace(found, portability=replace(fine, layers=()))
    assert "no layer multiplies uint8 by int8" in _terminal(nothing)


@pytest.mark.chromium
def test_a_browser_draws_both_charts(found: LayersExplained, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    page = tmp_path / "layers.html"
    page.write_text(_page(found))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    flags += ["--no-first-run", "--virtual-time-budget=10000", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [chromium, *flags, "--dump-dom", page.as_uri()]
    drawn = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    for chart, axis in (("sensitivity", "noise at the lowest output, dB"), ("saturation", "with 7-bit weights")):
        inside = drawn[drawn.index(f'id="{chart}"') :]
        assert axis in inside[inside.index('class="main-svg"') :][:40_000]
