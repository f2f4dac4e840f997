"""OpenVINO on the CPU (extra ``[openvino]``)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

from onnxopt.compile.engine import Backend, Engine, Feeds, Results, refuse_wrong_feeds, runtime_error
from onnxopt.ir.signature import Dim, Port, Signature
from onnxopt.options import option, options
from onnxopt.targets.target import Target

_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_DTYPES = {
    "f32": "float32",
    "f64": "float64",
    "f16": "float16",
    "bf16": "bfloat16",
    "boolean": "bool",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
}


@options
class OpenVino(Backend):
    """OpenVINO's CPU plugin."""

    name: ClassVar[str] = "openvino"
    libraries: ClassVar[tuple[str, ...]] = ("openvino",)

    precision: Literal["float32", "bfloat16", "float16"] = option(
        "what the plugin may compute in; inputs and outputs stay as they are", default="float32"
    )

    def unavailable(self) -> str | None:
        """Return why the package is not there, or None."""
        return None if find_spec("openvino") else "openvino is not installed: pip install 'onnxopt[openvino]'"

    def compile(self, model: Path, target: Target) -> Engine:
        """Read and compile the model for latency: one stream of ``target.threads`` threads."""
        import openvino

        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _PRECISIONS[self.precision],
            "INFERENCE_NUM_THREADS": target.threads,
            "NUM_STREAMS": 1,
        }
        try:
            core = openvino.Core()
            read = core.read_model(str(model))
            signature = Signature(_ports(read.inputs), _ports(read.outputs))
            return _Compiled(core.compile_model(read, "CPU", config), signature)
        except Exception as error:
            raise runtime_error("openvino", "compile", error, model) from error


class _Compiled(Engine):
    def __init__(self, compiled: Any, signature: Signature) -> None:
        """Keep the names the file gives: compiling adds aliases to outputs."""
        self._request = compiled.create_infer_request()
        self._signature = signature
        self._inputs = {port.name for port in signature.inputs}

    @property
    def signature(self) -> Signature:
        """The compiled model's inputs and outputs; dynamic dimensions have no names."""
        return self._signature

    def run(self, feeds: Feeds) -> Results:
        """Run once; results are copies. An input that is not fed would silently keep the array of the call before."""
        if feeds.keys() != self._inputs:
            refuse_wrong_feeds("openvino", self._signature, feeds)
        try:
            self._request.infer(dict(feeds), share_inputs=True)
            tensors = self._request.output_tensors
            return {port.name: tensors[i].data.copy() for i, port in enumerate(self._signature.outputs)}
        except Exception as error:
            raise runtime_error("openvino", "run", error) from error

    def close(self) -> None:
        """Drop the request and, with it, the compiled model."""
        self._request = None


def _ports(outputs: Any) -> tuple[Port, ...]:
    return tuple(
        Port(o.get_any_name(), _DTYPES.get(o.element_type.get_type_name(), "?"), _dims(o.partial_shape))
        for o in outputs
    )


def _dims(shape: Any) -> tuple[Dim, ...] | None:
    if shape.rank.is_dynamic:
        return None
    return tuple(None if dim.is_dynamic else dim.get_length() for dim in shape)
