"""What ``onnxopt rewrite`` needs for very large models: seconds by the number of nodes, memory by bytes of weights.

Each model is generated, rewritten by the command in a process of its own, and removed. The peak is the largest resident
set of that process and of those it starts to verify in, as the kernel counts it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx_ir

from onnxopt.rewrite.reading import weight

WIDTH = 4096
"""Rows and columns of each large weight: 64 MiB in float32."""


def main() -> None:
    """Print a line a model."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for count in options.nodes:
            path = many_nodes(Path(folder) / f"nodes-{count}.onnx", count)
            print(_line(f"{count} nodes", path, _rewritten(path)), flush=True)
        for size in options.gigabytes:
            path = large_weights(Path(folder) / "large.onnx", size)
            print(_line(f"{size} GB of weights", path, _rewritten(path)), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="*", default=[12500, 25000, 50000], help="sizes of graphs")
    parser.add_argument("--gigabytes", type=float, nargs="*", default=[4.0], help="sizes of weights")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to put the models; needs four times their size"
    )
    return parser.parse_args()


def many_nodes(path: Path, count: int) -> Path:
    """Write a model of about ``count`` nodes, most of them superfluous, that takes and returns float32 [n, 8]."""
    tape = onnx_ir.tape.Tape()
    weights: list[onnx_ir.Value] = []
    x = _value("x")
    value: onnx_ir.Value = x
    rng = np.random.default_rng(0)
    while len(tape.nodes) < count - 10:
        scale = _weight(weights, rng.uniform(0.9, 1.1, 8))
        shift = _weight(weights, rng.normal(0, 0.01, 8))
        value = tape.op("Add", [tape.op("Mul", [tape.op("Identity", [value]), scale]), shift])
        value = tape.op("Transpose", [tape.op("Transpose", [value], {"perm": (1, 0)})], {"perm": (1, 0)})
        value = tape.op("Cast", [tape.op("Tanh", [value])], {"to": onnx_ir.DataType.FLOAT})
        value = tape.op("Dropout", [tape.op("Abs", [tape.op("Abs", [value])])])
    _save(tape.op("Identity", [value]), x, tape, weights, path)
    return path


def large_weights(path: Path, gigabytes: float) -> Path:
    """Write a model of dense layers [n, 4096] -> [n, 4096] with external data, made layer by layer."""
    tape = onnx_ir.tape.Tape()
    weights: list[onnx_ir.Value] = []
    x = _value("x", WIDTH)
    value: onnx_ir.Value = x
    data = path.with_suffix(".data")
    rng, bytes_each = np.random.default_rng(0), 4 * WIDTH * WIDTH
    with data.open("wb") as file:
        for index in range(round(gigabytes * 1e9 / bytes_each)):
            (rng.standard_normal((WIDTH, WIDTH), np.float32) / np.float32(np.sqrt(WIDTH / 2))).tofile(file)
            kernel = _external(f"w{index}", data, index * bytes_each, bytes_each)
            weights.append(kernel)
            value = tape.op("Add", [tape.op("MatMul", [value, kernel]), _weight(weights, rng.normal(0, 0.1, WIDTH))])
            if index % 16 == 0:
                value = tape.op("Mul", [value, _weight(weights, rng.uniform(0.9, 1.1, WIDTH))])
            value = tape.op("Relu", [tape.op("Identity", [value])])
    _save(tape.op("Identity", [value]), x, tape, weights, path)
    return path


def _value(name: str, width: int = 8) -> onnx_ir.Value:
    return onnx_ir.Value(name=name, shape=onnx_ir.Shape(["n", width]), type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT))


def _weight(weights: list[onnx_ir.Value], array: np.ndarray) -> onnx_ir.Value:
    weights.append(weight(f"k{len(weights)}", array.astype(np.float32)))
    return weights[-1]


def _external(name: str, data: Path, offset: int, length: int) -> onnx_ir.Value:
    shape = onnx_ir.Shape([WIDTH, WIDTH])
    tensor = onnx_ir.ExternalTensor(
        data.name, offset, length, onnx_ir.DataType.FLOAT, shape=shape, name=name, base_dir=data.parent
    )
    return onnx_ir.Value(name=name, shape=shape, type=onnx_ir.TensorType(tensor.dtype), const_value=tensor)


def _save(
    value: onnx_ir.Value, x: onnx_ir.Value, tape: onnx_ir.tape.Tape, weights: list[onnx_ir.Value], path: Path
) -> None:
    value.name, value.shape, value.type = "y", x.shape, x.type
    graph = onnx_ir.Graph(
        [x], [value], nodes=tape.nodes, initializers=weights, opset_imports={"": 17}, name="generated"
    )
    onnx_ir.save(onnx_ir.Model(graph, ir_version=8), path)


def _rewritten(path: Path) -> dict[str, float]:
    """Run the command; return seconds, peak memory in bytes and nodes left."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        out = Path(folder) / "out" / "model.onnx"
        words = [
            "-m",
            "onnxopt",
            "rewrite",
            str(path),
            "--out",
            str(out),
            "--cache",
            str(Path(folder) / "cache"),
            "--json",
        ]
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE)
        told = process.stdout.read() if process.stdout else b""
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"onnxopt rewrite ended with {os.waitstatus_to_exitcode(status)}")
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "peak": usage.ru_maxrss * 1024, "nodes": json.loads(told)["nodes"]}


def _line(what: str, path: Path, found: dict[str, float]) -> str:
    size = sum(file.stat().st_size for file in path.parent.glob(f"{path.stem}.*"))
    return (
        f"{what}: {found['nodes']:.0f} nodes left in {found['seconds']:.1f} s;"
        f" peak {found['peak'] / 1e9:.2f} GB, {found['peak'] / size:.2f} times the {size / 1e9:.2f} GB of the file"
    )


if __name__ == "__main__":
    main()
