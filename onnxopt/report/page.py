"""The frame of every page: sections, tables and charts in one file that needs no network, the charts' script inside."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template

from plotly.offline import get_plotlyjs

from onnxopt.report.figures import Figure


def whole_page(
    *,
    title: str,
    headline: str,
    subtitle: str,
    tiles: Iterable[tuple[str, str]],
    notes: Iterable[str],
    sections: Iterable[str],
    figures: Mapping[str, Figure],
) -> str:
    """Return a page.

    Args:
        title: Of the window.
        headline: What was found, in a sentence.
        subtitle: Of what, and where.
        tiles: What a figure is, and the figure.
        notes: What the reader must know.
        sections: Made by ``section``.
        figures: By the name their ``chart`` has.
    """
    template = Template(files("onnxopt.report").joinpath("page.html").read_text())
    return template.substitute(
        title=escape(title),
        headline=escape(headline),
        subtitle=escape(subtitle),
        tiles="".join(_tile(name, value) for name, value in tiles),
        notes="".join(f'<p class="note">{escape(note)}</p>' for note in notes),
        sections="\n".join(sections),
        plotly=get_plotlyjs(),
        figures=_script(figures),
    )


def section(heading: str, *parts: str) -> str:
    """Return parts, HTML each, below a heading."""
    return f"<section><h2>{escape(heading)}</h2>{''.join(parts)}</section>"


def chart(name: str) -> str:
    """Return the place of a figure."""
    return f'<div id="{escape(name)}" class="chart"></div>'


def paragraph(text: str) -> str:
    """Return a text of its own."""
    return f'<p class="soft">{escape(text)}</p>'


def table(head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], numbers: Iterable[int] = ()) -> str:
    """Return a table of rows, each with what kind it is; columns of numbers stand to the right."""
    right = set(numbers)

    def row(kind: str, tag: str, cells: Sequence[str]) -> str:
        inner = "".join(
            f"<{tag}{' class=number' if i in right else ''}>{escape(cell)}</{tag}>" for i, cell in enumerate(cells)
        )
        return f'<tr class="{kind}">{inner}</tr>'

    body = "".join(row(kind, "td", cells) for kind, cells in rows)
    return f'<div class="wide"><table><thead>{row("", "th", head)}</thead><tbody>{body}</tbody></table></div>'


def _tile(name: str, value: str) -> str:
    return f'<div class="tile"><b>{escape(value)}</b><span class="soft">{escape(name)}</span></div>'


def _script(value: object) -> str:
    """Return JSON that cannot end the script element it stands in."""
    return json.dumps(value).replace("<", "\\u003c")
