"""8 bits on the trained models of the zoo, one thread, beside its peers; and why, where they gain little.

The search is that of ``onnxopt optimize``, the peers are ONNX Runtime's quantizers and NNCF; measurements, options and
cache are those of ``optimize_zoo``. Of each model that stays below 1.5 times in ONNX Runtime it tells which layers have
8-bit kernels, what rounding each saves, and which operators the time goes to in float.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import onnxopt
from benchmarks import optimize_zoo
from onnxopt.context import Missed
from onnxopt.data.split import open_split
from onnxopt.errors import OnnxoptError
from onnxopt.explain.layers import LayerFinding, LayersExplained
from onnxopt.ir.read import read_model
from onnxopt.profile.operators import operator_seconds
from onnxopt.targets.target import local_target

ENOUGH = 1.5
"""Times faster in ONNX Runtime from which on no reason is asked for."""

_TOLD = 5


def main() -> None:
    """Measure, print each model as it is done with the reasons of those that gain little, and the summary."""
    options = optimize_zoo.read_options(__doc__, Path("build/quantize.json"))
    rows, reasons = [], {}
    for name in options.models:
        row = optimize_zoo.measured(name, options)
        rows.append(row)
        print(optimize_zoo.told(row), flush=True)
        if row.ort.ratio < ENOUGH:
            reasons[name] = list(_reasons(options.zoo / name, options.cache))
            print("".join(f"  because {reason}\n" for reason in reasons[name]), end="", flush=True)
    print(optimize_zoo.summary(rows))
    found = {"rows": [asdict(row) for row in rows], "reasons": reasons}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1))


def _reasons(folder: Path, cache: Path) -> Iterator[str]:
    """Yield why 8 bits do not make a model faster in ONNX Runtime."""
    model = folder / "model.onnx"
    yield from _float_time(model, folder)
    try:
        found = onnxopt.explain_layers(model, data=str(folder), worst=0, cache=cache)
    except OnnxoptError as error:
        yield error.what
        return
    yield from _layers(found)


def _float_time(model: Path, folder: Path) -> Iterator[str]:
    """Yield the operators the float model spends its time in."""
    read = read_model(model)
    feeds = open_split(str(folder), read).evaluation.read(0).feeds
    seconds = operator_seconds(model, [feeds], local_target())
    total = sum(seconds.values())
    shares = (f"{kind} {taken / total:.0%}" for kind, taken in sorted(seconds.items(), key=lambda one: -one[1])[:_TOLD])
    yield f"in float the time goes to {', '.join(shares)} ({1e3 * total:.2f} ms)"


def _layers(found: LayersExplained) -> Iterator[str]:
    if found.sqnr_db is None:
        yield "it is quantized already, and computes in 8 bits where it came so"
        return
    share, gain = sum(layer.share for layer in found.layers), sum(layer.gain for layer in found.layers)
    yield (
        f"layers with 8-bit kernels take {share:.0%} of the time and save {gain:.0%};"
        f" with all of them rounded the lowest output keeps {found.sqnr_db:.1f} dB"
    )
    yield from map(_layer, sorted(found.layers, key=lambda layer: -layer.share)[:_TOLD])
    for reason, count in Counter(map(_left, found.left)).most_common(_TOLD):
        yield f"{count} x {reason}"


def _layer(layer: LayerFinding) -> str:
    return (
        f"{layer.layers[0]} ({layer.operator}): {layer.share:.1%} of the time, of which 8 bits save"
        f" {layer.gain / max(layer.share, 1e-9):.0%}; alone it leaves {layer.sqnr_db:.1f} dB"
    )


def _left(one: Missed) -> str:
    return f"left in float: {one.reason}"


if __name__ == "__main__":
    main()
