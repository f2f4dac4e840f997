"""Which widths kernels like: whether a layer of a width is any faster than one of the next multiple of 8, 16 or 32.

Convolutions and products of each width run in turn with those of the next block, over fresh processes. Where a narrower
one is not faster, kernels pad: pruning to it loses channels for nothing. ``onnxopt.targets.widths`` rests on this.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx.parser

from onnxopt.compile.engine import Feeds, make_backend
from onnxopt.compile.isolation import IsolatedEngine
from onnxopt.profile.latency import Plan
from onnxopt.profile.launches import LAUNCHES, compare_launches
from onnxopt.profile.statistics import Speedup
from onnxopt.targets.target import local_target
from onnxopt.targets.widths import preferred_width

WIDTHS = (36, 40, 44, 52, 56, 60, 72, 80, 88)
BLOCKS = (8, 16, 32)
_LAYERS = 6

KINDS: Mapping[str, tuple[str, str, tuple[int, ...]]] = {
    "Conv 3x3": ("1, {width}, 28, 28", "Conv <pads = [1, 1, 1, 1]>", (3, 3)),
    "Conv 1x1": ("1, {width}, 28, 28", "Conv", (1, 1)),
    "MatMul": ("128, {width}", "MatMul", ()),
}
"""Shape of what layers read and make, the operator, and the kernel of its weight."""


@dataclass(frozen=True)
class Row:
    """A width held against the next multiple of a block.

    Attributes:
        kind: Of layer.
        width: Channels read and made by each of the layers.
        block: Multiple of it that the other has.
        wider: Channels of the other.
        fewer: Times fewer multiply-accumulates than the other.
        speedup: Times faster than the other.
    """

    kind: str
    width: int
    block: int
    wider: int
    fewer: float
    speedup: Speedup


def main() -> None:
    """Measure, and print a line a width."""
    options = _options()
    target = local_target()
    print(f"{', '.join(target.isa) or target.name}: widths are multiples of {preferred_width(target)}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, width, block in _asked(options.kinds):
            rows.append(_measured(kind, width, block, options.seconds, Path(folder)))
            row = rows[-1]
            told = f"{row.kind}, {row.width} for {row.wider} (in {block}s), {row.fewer:.2f} times fewer products"
            print(f"{told}: {row.speedup}", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=list(KINDS), help=f"of layers: {', '.join(KINDS)}")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each comparison")
    parser.add_argument("--out", type=Path, default=Path("build/widths.json"), help="file for all figures")
    return parser.parse_args()


def _asked(kinds: list[str]) -> list[tuple[str, int, int]]:
    """Return each width with the blocks it is no multiple of, the widest that a finer one does not ask for already."""
    pairs = {(kind, width, -width % block + width): block for kind in kinds for width in WIDTHS for block in BLOCKS}
    return [(kind, width, block) for (kind, width, wider), block in pairs.items() if wider > width]


def _measured(kind: str, width: int, block: int, seconds: float, folder: Path) -> Row:
    wider = width + -width % block
    start = partial(IsolatedEngine, make_backend("ort"), target=local_target().with_threads(1))
    slow, fast = (partial(start, _model(kind, one, folder)) for one in (wider, width))
    plan = Plan(max_seconds=seconds / LAUNCHES)
    found = compare_launches(slow, fast, _feeds(), plan, LAUNCHES)
    return Row(kind, width, block, wider, (wider / width) ** 2, found.speedup)


def _feeds() -> list[Feeds]:
    """Return what every chain reads: the noise its first layer widens."""
    return [{"x": np.random.default_rng(0).standard_normal(1).astype(np.float32)}]


def _model(kind: str, width: int, folder: Path) -> Path:
    """Return the file of a chain of layers of one width, behind a number that is spread over their input."""
    shape, operator, kernel = KINDS[kind]
    shape = shape.format(width=width)
    sizes = [int(dim) for dim in shape.split(",")]
    random = np.random.default_rng(0)
    chain = " ".join(f"h{i + 1} = {operator} (h{i}, w{i})" for i in range(_LAYERS))
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[1] x) => (float[{shape}] h{_LAYERS}) {{
            h0 = Mul (x, noise) {chain}
        }}"""
    )
    arrays = {"noise": random.standard_normal(sizes)}
    arrays |= {f"w{i}": random.standard_normal((width, width, *kernel)) / width for i in range(_LAYERS)}
    for name, array in arrays.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    path = folder / f"{kind.replace(' ', '-')}-{width}.onnx"
    onnx.save(model, path)
    return path


if __name__ == "__main__":
    main()
