"""ONNX Runtime on the CPU."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

from onnxopt.compile.engine import Backend, Engine, Feeds, Results, runtime_error
from onnxopt.ir.signature import Port, Signature
from onnxopt.options import option, options
from onnxopt.targets.target import Target

_ONLY_ERRORS = 3


@options
class OnnxRuntime(Backend):
    """ONNX Runtime's CPU execution provider."""

    name: ClassVar[str] = "ort"
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    graph_optimization: Literal["all", "extended", "basic", "disabled"] = option(
        "how far the runtime rewrites the graph when it loads it", default="all"
    )
    denormals_as_zero: bool = option(
        "treat denormal numbers as zero: faster where activations fade out, and not exactly the same", default=False
    )
    memory_pattern: bool = option("plan memory ahead; only pays where shapes do not change", default=True)
    prepacking: bool = option("lay weights out anew for its kernels: faster, and each is held twice", default=True)
    spinning: bool = option("let idle threads of one inference spin rather than sleep", default=True)

    def unavailable(self) -> str | None:
        """Return why the package is not there, or None."""
        return None if find_spec("onnxruntime") else "onnxruntime is not installed: pip install onnxruntime"

    def compile(self, model: Path, target: Target) -> Engine:
        """Load the model into a session of ``target.threads`` threads."""
        import onnxruntime

        try:
            session = onnxruntime.InferenceSession(
                str(model), self._session_options(target), providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise runtime_error("onnxruntime", "load", error, model) from error
        return _Session(session)

    def _session_options(self, target: Target) -> Any:
        import onnxruntime

        level = onnxruntime.GraphOptimizationLevel
        chosen = onnxruntime.SessionOptions()
        chosen.graph_optimization_level = {
            "all": level.ORT_ENABLE_ALL,
            "extended": level.ORT_ENABLE_EXTENDED,
            "basic": level.ORT_ENABLE_BASIC,
            "disabled": level.ORT_DISABLE_ALL,
        }[self.graph_optimization]
        chosen.intra_op_num_threads = target.threads
        chosen.inter_op_num_threads = 1
        chosen.enable_mem_pattern = self.memory_pattern
        chosen.log_severity_level = _ONLY_ERRORS
        chosen.add_session_config_entry("session.set_denormal_as_zero", str(int(self.denormals_as_zero)))
        chosen.add_session_config_entry("session.disable_prepacking", str(int(not self.prepacking)))
        chosen.add_session_config_entry("session.intra_op.allow_spinning", str(int(self.spinning)))
        return chosen


class _Session(Engine):
    def __init__(self, session: Any) -> None:
        self._session = session
        self._outputs = [port.name for port in session.get_outputs()]

    @property
    def signature(self) -> Signature:
        """The session's inputs and outputs."""
        return Signature(_ports(self._session.get_inputs()), _ports(self._session.get_outputs()))

    def run(self, feeds: Feeds) -> Results:
        """Run once; results are fresh arrays."""
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, dict(feeds)), strict=True))
        except Exception as error:
            raise runtime_error("onnxruntime", "run", error) from error

    def close(self) -> None:
        """Drop the session."""
        self._session = None


def _ports(arguments: Any) -> tuple[Port, ...]:
    return tuple(Port(a.name, _dtype(a.type), tuple(dim or None for dim in a.shape)) for a in arguments)


def _dtype(text: str) -> str:
    """Turn ``tensor(float)`` into ``float32``; anything that is no plain tensor stays as onnxruntime says it."""
    inner = text.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(inner, inner)
