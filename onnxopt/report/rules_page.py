"""The page of all rewrite rules, made from the rules: ``python -m onnxopt.report.rules_page > docs/rules.md``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator

from onnxopt.rewrite.rule import Rule
from onnxopt.rewrite.rules import FAMILIES


def rules_page() -> str:
    """Return the page as Markdown: for each family its rules, what they do, when they fire, and from which opset on."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Rewrite rules"
    yield ""
    yield "`onnxopt rewrite MODEL --out FILE` applies them until none fires, and keeps an application only if the model"
    yield "still computes the same. `--explain` lists where each fired and where it nearly did, with the reason;"
    yield "`--only` and `--skip` take names of rules and of families. This page is made from the rules' own words."
    for family, rules in FAMILIES.items():
        yield from ("", f"## {family}", "", _first_line(sys.modules[type(rules[0]).__module__]), "")
        yield from ("| rule | what it does | when | looks at | from opset |", "|---|---|---|---|---|")
        yield from map(_row, rules)


def _row(rule: Rule) -> str:
    looks_at = ", ".join(sorted(rule.operators))
    return f"| `{rule.name}` | {_first_line(rule)} | {_first_line(rule.match)} | {looks_at} | {rule.since} |"


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").split("\n", 1)[0].replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(rules_page())
