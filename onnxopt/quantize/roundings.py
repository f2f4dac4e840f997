"""The ways to round a weight to blocks, by name."""

from __future__ import annotations

from typing import Literal

from onnxopt.ir.quant import Array, Scheme, fit_array
from onnxopt.quantize.awq import round_awq
from onnxopt.quantize.blocks import Blocks, nearest, padded
from onnxopt.quantize.clipped import fit_clipped
from onnxopt.quantize.gptq import round_gptq
from onnxopt.quantize.hqq import fit_hqq

Rounding = Literal["nearest", "clipped", "hqq", "gptq", "awq"]

USING_SAMPLES: frozenset[Rounding] = frozenset({"gptq", "awq"})


def to_blocks(weight: Array, scheme: Scheme, rounding: Rounding, gram: Array | None = None) -> Blocks:
    """Return a weight in blocks.

    Args:
        weight: [outputs, inputs], float.
        scheme: Of blocks.
        rounding: ``nearest``: each block's own range; ``clipped``: the range of least squared error; ``hqq``: of least
            p-norm error; ``gptq``, ``awq``: of least error at the outputs, as ``gram`` tells.
        gram: [inputs, inputs]: the sum of xᵀx over what the weight multiplies. None: ``gptq`` and ``awq`` clip only.
    """
    whole = padded(weight, scheme.block)
    if rounding == "nearest":
        return nearest(whole, fit_array(whole, scheme, 1))
    if rounding == "hqq":
        return nearest(whole, fit_hqq(whole, scheme))
    if rounding == "clipped" or gram is None:
        return nearest(whole, fit_clipped(whole, scheme))
    wide = padded(padded(gram, scheme.block).T, scheme.block)
    return (round_gptq if rounding == "gptq" else round_awq)(whole, scheme, wide)
