"""ONNX's own reference implementation: slow, and obvious. For tests and for settling arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from onnxopt.compile.engine import Backend, Engine, Feeds, Results, refuse_wrong_feeds, runtime_error
from onnxopt.ir.signature import Port, Signature
from onnxopt.options import options
from onnxopt.targets.target import Target


@options
class Reference(Backend):
    """The numpy evaluator of the onnx package."""

    name: ClassVar[str] = "reference"
    libraries: ClassVar[tuple[str, ...]] = ("onnx",)

    def unavailable(self) -> str | None:
        """Return None: onnx is always there."""
        return None

    def compile(self, model: Path, target: Target) -> Engine:
        """Read the model, checking that every operator has an implementation."""
        import onnx
        from onnx.reference import ReferenceEvaluator

        try:
            proto = onnx.load(model)
            return _Evaluator(ReferenceEvaluator(proto), _signature(proto))
        except Exception as error:
            raise runtime_error("the reference evaluator", "load", error, model) from error


class _Evaluator(Engine):
    def __init__(self, evaluator: Any, signature: Signature) -> None:
        self._evaluator = evaluator
        self._signature = signature

    @property
    def signature(self) -> Signature:
        """Inputs and outputs as the file declares them."""
        return self._signature

    def run(self, feeds: Feeds) -> Results:
        """Evaluate node after node with numpy, which would broadcast arrays of another rank."""
        refuse_wrong_feeds("the reference evaluator", self._signature, feeds)
        names = [port.name for port in self._signature.outputs]
        try:
            results = self._evaluator.run(names, dict(feeds))
        except Exception as error:
            raise runtime_error("the reference evaluator", "run", error) from error
        return {name: np.asarray(result) for name, result in zip(names, results, strict=True)}

    def close(self) -> None:
        """Drop the evaluator and its weights."""
        self._evaluator = None


def _signature(proto: Any) -> Signature:
    defaults = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in defaults]
    return Signature(tuple(map(_port, inputs)), tuple(map(_port, proto.graph.output)))


def _port(value: Any) -> Port:
    import onnx

    kind = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    shape = tuple(dim.dim_value or dim.dim_param or None for dim in kind.shape.dim) if kind.HasField("shape") else None
    return Port(value.name, "string" if dtype == "object" else dtype, shape)
