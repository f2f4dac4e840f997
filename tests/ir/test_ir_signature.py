"""What fits an interface, what does not, and how that is told."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from onnxopt.errors import DataError
from onnxopt.ir.signature import Port, Signature, shape_text
from tests.graphs import Array

IMAGE = Port("image", "float32", ("batch", 3, None))
WORDS = Port("words", "string", ("n",))
ANY = Port("any", "int64")
SIGNATURE = Signature((IMAGE, WORDS, ANY), (Port("y", "float32", ("batch", 2)),))


def _feeds(**changes: Array) -> dict[str, Array]:
    whole = {"image": np.ones((2, 3, 5), np.float32), "words": np.array(["a", "b"]), "any": np.array(3)}
    return {**whole, **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"image": np.ones((7, 3, 0), np.float32)},
        {"words": np.array([b"a"])},
        {"words": np.array(["a"], object)},
        {"any": np.zeros((1, 2, 3), np.int64)},
    ],
)
def test_feeds_that_fit(changes: dict[str, Array]) -> None:
    SIGNATURE.check_feeds(_feeds(**changes), "a sample")


@pytest.mark.parametrize(
    ("changes", "what", "hint"),
    [
        ({"imag": np.ones(1)}, "the model has no input 'imag'", "did you mean 'image'?"),
        (
            {"image": np.ones((2, 3, 5))},
            "input 'image' is float32, the sample holds float64",
            "store it as float32: array.astype('float32')",
        ),
        (
            {"image": np.ones((2, 4, 5), np.float32)},
            "input 'image' has shape [batch,3,?], the sample [2,4,5]",
            "arrays carry every dimension of the input, the batch too",
        ),
        (
            {"image": np.ones((3, 5), np.float32)},
            "input 'image' has shape [batch,3,?], the sample [3,5]",
            "arrays carry every dimension of the input, the batch too",
        ),
        ({"words": np.array([1])}, "input 'words' is string, the sample holds int64", "store it as string"),
        ({"any": np.array(1, np.int32)}, "input 'any' is int64, the sample holds int32", "store it as int64"),
    ],
)
def test_feeds_that_do_not(changes: dict[str, Array], what: str, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        SIGNATURE.check_feeds(_feeds(**changes), "a sample")

    assert caught.value.what == what
    assert caught.value.where == "a sample"
    assert (caught.value.hint or "").startswith(hint)


def test_a_missing_array_is_asked_for_with_its_type() -> None:
    feeds = _feeds()
    del feeds["image"]

    with pytest.raises(DataError) as caught:
        SIGNATURE.check_feeds(feeds, "a sample")
    assert caught.value.what == "the sample has no array for input 'image: float32[batch,3,?]'"
    assert caught.value.hint == "it has: any, words"


def test_a_sample_of_nothing() -> None:
    with pytest.raises(DataError) as caught:
        SIGNATURE.check_feeds({}, "a sample")
    assert caught.value.hint == "it has: nothing"


@pytest.mark.parametrize(
    ("inputs", "outputs", "difference"),
    [
        ((IMAGE,), (ANY,), None),
        ((WORDS,), (ANY,), "inputs were ['image'], are ['words']"),
        ((IMAGE, WORDS), (ANY,), "inputs were ['image'], are ['image', 'words']"),
        ((IMAGE,), (), "outputs were ['any'], are []"),
        ((IMAGE,), (Port("any", "int32"),), "output was 'any: int64[...]', is 'any: int32[...]'"),
        (
            (Port("image", "float32", (1, 3, None)),),
            (ANY,),
            "input was 'image: float32[batch,3,?]', is 'image: float32[1,3,?]'",
        ),
    ],
)
def test_difference(inputs: tuple[Port, ...], outputs: tuple[Port, ...], difference: str | None) -> None:
    assert Signature((IMAGE,), (ANY,)).difference(Signature(inputs, outputs)) == difference


def test_input_by_name() -> None:
    assert SIGNATURE.input("words") is WORDS


@pytest.mark.parametrize(
    ("shape", "text"), [(("batch", 3, None), "[batch,3,?]"), ((), "[]"), (None, "[...]"), ((0,), "[0]")]
)
def test_shape_text(shape: tuple[int | str | None, ...] | None, text: str) -> None:
    assert shape_text(shape) == text


def test_imports_nothing_heavy() -> None:
    code = "import sys, onnxopt.ir.signature; print({'onnx', 'onnx_ir', 'numpy', 'onnxruntime'} & set(sys.modules))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
