"""Widths that kernels of a target like."""

import pytest

from onnxopt.targets.target import target
from onnxopt.targets.widths import preferred_width


@pytest.mark.parametrize(("name", "width"), [("x86-avx512-vnni", 16), ("x86-avx2", 8), ("arm64-dot", 8)])
def test_the_widest_vectors_tell(name, width):
    assert preferred_width(target(name)) == width
