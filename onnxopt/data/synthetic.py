"""Made-up feeds for a model nobody gave data for: they fit its interface and say nothing about accuracy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir

from onnxopt.data.sample import Array, InMemory, Sample, Samples
from onnxopt.data.source import Source, need
from onnxopt.errors import DataError, did_you_mean
from onnxopt.ir.model import Model
from onnxopt.ir.signature import Port
from onnxopt.ir.weights import constant_tensor
from onnxopt.options import option, options

_PASS_ON = {"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_BATCH = re.compile(r"b|n|bs|batch.*|unk__.*", re.IGNORECASE)
"""Names exporters give to the batch; ``unk__`` is tf2onnx's for a dimension it knows nothing of."""

_OTHER_DIM = 32
"""Size of a symbolic dimension nobody gave: a multiple of the strides of most networks."""


@options
class Synthetic(Source):
    """Random feeds drawn to fit the model: N(0, 1) floats, ids below the embedding they index, masks of ones."""

    name: ClassVar[str] = "synthetic"

    synthetic: int = option("number of samples", default=16, ge=1)
    dims: dict[str, int] = option("sizes of symbolic dimensions, by name or as INPUT.AXIS", default={})
    seed: int = option("of the random numbers", default=0)

    def open(self, model: Model, base: Path) -> Samples:
        """Return the feeds; the same for the same seed and model."""
        self._check_dims(model)
        random = np.random.default_rng(self.seed)
        limits = index_limits(model.graph)
        return InMemory(tuple(self._sample(i, model, limits, random) for i in range(self.synthetic)), made_up=True)

    def _check_dims(self, model: Model) -> None:
        axes = [(port.name, *pair) for port in model.signature.inputs for pair in enumerate(port.shape or ())]
        known = {f"{name}.{axis}" for name, axis, _ in axes} | {dim for *_, dim in axes if isinstance(dim, str)}
        for key, size in self.dims.items():
            need(key in known, f"no input has a dimension {key!r}", "dims", did_you_mean(key, known))
            need(size >= 0, f"the dimension {key!r} cannot be {size}", "dims")

    def _sample(self, index: int, model: Model, limits: Mapping[str, int], random: np.random.Generator) -> Sample:
        feeds = {port.name: self._array(port, limits.get(port.name), random) for port in model.signature.inputs}
        return Sample(f"synthetic[{index}]", feeds)

    def _array(self, port: Port, limit: int | None, random: np.random.Generator) -> Array:
        shape = self._shape(port)
        if port.dtype == "bool":
            return random.integers(0, 2, shape).astype(bool)
        if port.dtype.startswith(("int", "uint")):
            if limit is None and "mask" in port.name.lower():
                return np.ones(shape, port.dtype)
            return random.integers(0, limit or 2, shape).astype(port.dtype)
        if port.dtype in ("float32", "float64", "float16"):
            return random.standard_normal(shape).astype(port.dtype)
        raise DataError(
            f"cannot make up feeds of type {port.dtype}", where=f"input {port.name!r}", hint="give real samples: --data"
        )

    def _shape(self, port: Port) -> tuple[int, ...]:
        if port.shape is None:
            raise DataError(f"the rank of input {port.name!r} is unknown", hint="give real samples: --data")
        return tuple(self._dim(port, axis) for axis in range(len(port.shape)))

    def _dim(self, port: Port, axis: int) -> int:
        assert port.shape is not None
        dim = port.shape[axis]
        if isinstance(dim, int):
            return dim
        for key in (f"{port.name}.{axis}", str(dim)):
            if key in self.dims:
                return self.dims[key]
        return 1 if axis == 0 or _BATCH.fullmatch(str(dim)) else _OTHER_DIM


def index_limits(graph: onnx_ir.Model) -> dict[str, int]:
    """Return, for each input used as indices into a stored table, the number of the table's rows."""
    found: dict[str, int] = {}
    for value in graph.graph.inputs:
        rows = [limit for limit in map(_rows, _uses(value)) if limit is not None]
        if value.name and rows:
            found[value.name] = min(rows)
    return found


def _uses(value: onnx_ir.Value) -> list[tuple[onnx_ir.Node, int]]:
    """Return the nodes a value reaches, directly or through nodes that keep its elements."""
    pairs: list[tuple[onnx_ir.Node, int]] = []
    for node, index in value.uses():
        if node.op_type in _PASS_ON:
            pairs.extend(_uses(node.outputs[0]))
        else:
            pairs.append((node, index))
    return pairs


def _rows(use: tuple[onnx_ir.Node, int]) -> int | None:
    node, index = use
    if node.op_type != "Gather" or index != 1:
        return None
    table = constant_tensor(node.inputs[0])
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    return None if table is None else int(table.shape.numpy()[axis])
