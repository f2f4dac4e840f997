"""The page of rewrite rules says what the rules say."""

from pathlib import Path

from onnxopt.report.rules_page import rules_page
from onnxopt.rewrite.rules import rules_by_name


def test_the_page_is_what_the_rules_say() -> None:
    written = Path(__file__).parents[2] / "docs" / "rules.md"
    assert written.read_text() == rules_page(), "run: python -m onnxopt.report.rules_page > docs/rules.md"


def test_every_rule_says_what_it_does_and_when() -> None:
    page = rules_page()
    for name, rule in rules_by_name().items():
        assert f"| `{name}` |" in page
        assert type(rule).__doc__
        assert type(rule).match.__doc__
