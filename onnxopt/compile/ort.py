"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

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

    def compile(self, model: Path, target: Target) -> OrtSession:
        """Load the model into a session of ``target.threads`` threads."""
        return OrtSession(_session(model, self._session_options(target)))

    def profile(self, model: Path, target: Target, feeds: Sequence[Feeds], folder: Path) -> Path:
        """Run feeds in turn; return the file, in a folder, with the runtime's own profile of each node of each run.

        Raises:
            EngineError: The runtime cannot load or run the model.
        """
        options = self._session_options(target)
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        session = _session(model, options)
        engine = OrtSession(session)
        for one in feeds:
            engine.run(one)
        return Path(session.end_profiling())

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


def _session(model: Path, options: Any) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise runtime_error("onnxruntime", "load", error, model) from error


class OrtSession(Engine):
    """A session of ONNX Runtime."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._outputs = [port.name for port in session.get_outputs()]
        self._bound: tuple[Any, Results] | None = None

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

    def run_in_place(self, feeds: Feeds) -> Results:
        """Run once; the results are overwritten by the next call, which saves making large arrays anew each time."""
        shapes = {name: array.shape for name, array in feeds.items()}
        if self._bound is None or self._bound[0] != shapes:
            self._bound = shapes, self.run(feeds)
            return self._bound[1]
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name, array in self._bound[1].items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        try:
            self._session.run_with_iobinding(binding)
        except Exception:  # noqa: BLE001  (sizes that depend on values do not fit: if it is something else, run tells)
            self._bound = shapes, self.run(feeds)
        return self._bound[1]

    def twin(self) -> OrtSession:
        """Return another engine on the same session, for another thread: only what is bound is its own."""
        return OrtSession(self._session)

    def close(self) -> None:
        """Drop the session."""
        self._session = None


def _ports(arguments: Any) -> tuple[Port, ...]:
    return tuple(Port(a.name, _dtype(a.type), tuple(dim or None for dim in a.shape)) for a in arguments)


def _dtype(text: str) -> str:
    """Turn ``tensor(float)`` into ``float32``; anything that is no plain tensor stays as onnxruntime says it."""
    inner = text.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(inner, inner)
