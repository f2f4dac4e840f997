"""Static quantization beside ONNX Runtime's: seconds, in turn, memory by number of samples, and going on after kill -9.

Both start from a float model in a file and end with a quantized one in a file, in processes of their own. Samples are
the model's calibration samples, again and again with a little noise until there are enough.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

import onnxopt_zoo
from benchmarks import peers
from onnxopt.compile.isolation import Limits, run_isolated
from onnxopt.context import Context
from onnxopt.data.files import SampleFiles, write_samples
from onnxopt.data.sample import InMemory, Sample
from onnxopt.ir.read import read_model
from onnxopt.ir.write import write_model
from onnxopt.passes import make_pass

LIMITS = Limits(seconds=1800)
SAMPLES = 128
FEW, MANY = 16, 512
ROUNDS = 5
NOISE = 0.01
"""Standard deviation of what is added to a repeated sample, as a share of its own."""


def main() -> None:
    """Measure and print."""
    options = _options()
    found = {}
    for name in options.models:
        files = onnxopt_zoo.get(name, options.zoo / name, cache=options.downloads)
        with tempfile.TemporaryDirectory() as folder:
            found[name] = _measured(Path(files.model), options.zoo / name / "calibration", Path(folder))
        print(f"{name}: {json.dumps(found[name], indent=1)}", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1))


def ours(model: str, samples: str, out: str) -> float:
    """Quantize with the pass; return seconds. Called in a child."""
    read, change = read_model(model), make_pass("quantize-static", {"samples": MANY})
    data = SampleFiles(tuple(sorted(Path(samples).glob("*.npz"))))
    started = time.perf_counter()
    write_model(change(read, Context.of(data=data, scratch=Path(out).parent)), out)
    return time.perf_counter() - started


def quantize_static(model: str, samples: str, out: str) -> float:
    """Quantize with onnxruntime; return seconds, what it imports not counted. Called in a child."""
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: F401

    started = time.perf_counter()
    peers.quantize_static(model, samples, out, limit=MANY)
    return time.perf_counter() - started


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["mobilenet_v2"], help="models of the zoo")
    parser.add_argument("--zoo", type=Path, default=Path("build/zoo"), help="folder of models and samples")
    parser.add_argument("--downloads", type=Path, default=Path.home() / ".cache/onnxopt/zoo", help="folder of packages")
    parser.add_argument("--out", type=Path, default=Path("build/calibration.json"), help="file for all figures")
    return parser.parse_args()


def _measured(model: Path, calibration: Path, folder: Path) -> dict[str, object]:
    for count in (FEW, SAMPLES, MANY):
        _write(calibration, count, folder / str(count))
    seconds: dict[str, list[float]] = {"ours": [], "quantize_static": []}
    for round_ in range(ROUNDS):
        for tool in sorted(seconds, reverse=bool(round_ % 2)):
            place, out = f"benchmarks.calibration:{tool}", str(folder / "out.onnx")
            seconds[tool].append(run_isolated(place, str(model), str(folder / str(SAMPLES)), out, limits=LIMITS))
    shares = [a / b for a, b in zip(seconds["ours"], seconds["quantize_static"], strict=True)]
    memory = {count: _peak(model, folder / str(count), folder / f"cache-{count}") for count in (FEW, MANY)}
    return {
        f"seconds for {SAMPLES} samples": {tool: round(statistics.median(taken), 2) for tool, taken in seconds.items()},
        "share of quantize_static's, each round": [round(share, 3) for share in shares],
        "median share": round(statistics.median(shares), 3),
        "peak memory of all processes, bytes": memory,
        "memory ratio": round(memory[MANY] / memory[FEW], 3),
        **_killed(model, folder / str(MANY), folder),
    }


def _write(calibration: Path, count: int, folder: Path) -> None:
    """Write so many samples, those beyond the first round with noise."""
    random = np.random.default_rng(0)
    sources = SampleFiles(tuple(sorted(calibration.glob("*.npz"))))
    made = []
    for index in range(count):
        feeds = dict(sources.read(index % len(sources)).feeds)
        for name, array in feeds.items():
            if index >= len(sources) and array.dtype == np.float32:
                feeds[name] = array + random.standard_normal(array.shape, np.float32) * np.float32(NOISE * array.std())
        made.append(Sample(str(index), feeds))
    write_samples(InMemory(tuple(made)), folder)


def _start(model: Path, samples: Path, cache: Path, out: Path) -> subprocess.Popen[bytes]:
    words = ["quantize-static", str(model), "--data", str(samples), "--samples", str(MANY), "--out", str(out)]
    command = [sys.executable, "-m", "onnxopt", "--quiet", *words, "--cache", str(cache)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def _peak(model: Path, samples: Path, cache: Path) -> int:
    """Return the most bytes the command and all its children have had resident together."""
    process = _start(model, samples, cache, cache.with_suffix(".onnx"))
    most = 0
    while process.poll() is None:
        most = max(most, sum(_resident(one) for one in _family(process.pid)))
        time.sleep(0.01)
    if process.returncode:
        raise RuntimeError(f"the command failed with exit code {process.returncode}")
    return most


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


def _killed(model: Path, samples: Path, folder: Path) -> dict[str, object]:
    """Kill the command once it has kept some of its work; tell how much, and whether going on gives the same model."""
    cache, out = folder / "cache-killed", folder / "killed.onnx"
    process = _start(model, samples, cache, out)
    while not (found := list((cache / "kept").rglob("calibration-*.json"))) and process.poll() is None:
        time.sleep(0.05)
    family = _family(process.pid)
    os.kill(process.pid, 9)
    process.wait()
    psutil.wait_procs(family, timeout=10)
    kept = json.loads(found[0].read_text())["samples"]
    started = time.perf_counter()
    code = _start(model, samples, cache, out).wait()
    same = read_model(out).digest == read_model(folder / f"cache-{MANY}.onnx").digest if not code else False
    return {
        "samples kept when killed with SIGKILL": kept,
        "seconds to go on and finish": round(time.perf_counter() - started, 2),
        "the same model": same,
    }


if __name__ == "__main__":
    main()
