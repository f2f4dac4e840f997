"""What an error says, in which order, and with which exit code."""

from __future__ import annotations

import pickle

import pytest

from onnxopt import errors
from onnxopt.errors import BudgetError, DataError, OnnxoptError, RecipeError, UsageError, did_you_mean

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, OnnxoptError)]


def test_text_is_what_then_where_then_hint() -> None:
    error = DataError("a NaN", where="a.npz", hint="repair it")

    assert str(error) == "a NaN\n  at:   a.npz\n  hint: repair it"


def test_text_leaves_out_what_is_unknown() -> None:
    assert str(DataError("a NaN")) == "a NaN"
    assert str(DataError("a NaN", hint="repair it")) == "a NaN\n  hint: repair it"


@pytest.mark.parametrize(
    ("cls", "code"), [(OnnxoptError, 1), (DataError, 1), (UsageError, 2), (RecipeError, 2), (BudgetError, 3)]
)
def test_exit_codes(cls: type[OnnxoptError], code: int) -> None:
    assert cls("wrong").to_dict() == {
        "error": cls.__name__,
        "what": "wrong",
        "where": None,
        "hint": None,
        "exit_code": code,
    }


@pytest.mark.parametrize("cls", CLASSES)
def test_crosses_processes_whole(cls: type[OnnxoptError]) -> None:
    error = pickle.loads(pickle.dumps(cls("wrong", where="there", hint="do this")))

    assert type(error) is cls
    assert (error.what, error.where, error.hint) == ("wrong", "there", "do this")


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("rewrit", ["rewrite", "fold-constants"], "did you mean 'rewrite'?"),
        ("qqqqqq", ["b", "a"], "known: a, b"),
        ("anything", [], "there is none to choose from"),
    ],
)
def test_did_you_mean(word: str, known: list[str], hint: str) -> None:
    assert did_you_mean(word, known) == hint
