"""A language model's weights in 4 bits: size of the file, perplexity, and time of a step and of a prompt.

Perplexity is of the model's evaluation texts, its interval resampled in pairs. A step is one token with a filled cache,
a prompt the longest calibration sample with an empty one; both are timed beside the float32 model, in turn.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxopt
import onnxopt_zoo
from onnxopt.context import Context, ignore
from onnxopt.data.files import SampleFiles, write_samples
from onnxopt.data.sample import InMemory, Sample
from onnxopt.ir.read import read_model
from onnxopt.ir.write import write_model
from onnxopt.passes import make_pass

MODEL = "smollm2_135m"
IDS = "input_ids"
SECONDS = 20.0
"""Of each comparison of times, over all launches."""

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "nearest": {"rounding": "nearest"},
    "clipped": {"rounding": "clipped"},
    "hqq": {"rounding": "hqq"},
    "awq": {"rounding": "awq"},
    "gptq, symmetric": {"symmetric": True},
    "gptq, blocks of 16": {"block": 16},
    "gptq, blocks of 64": {"block": 64},
    "gptq, head of 4 bits": {"head_bits": 4},
    "gptq, float activations": {"accuracy_level": 0},
    "8 bits": {"bits": 8},
}
"""Options of ``quantize-weights`` by a word for them."""


def main() -> None:
    """Measure and print."""
    options = _options()
    files = onnxopt_zoo.get(MODEL, options.zoo / MODEL, cache=options.downloads)
    found = {}
    for variant in VARIANTS if options.all else ("default",):
        with tempfile.TemporaryDirectory() as folder:
            found[variant] = _measured(Path(files.model), options.zoo / MODEL, VARIANTS[variant], Path(folder))
        print(f"{variant}: {json.dumps(found[variant], indent=1)}", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every variant, not the defaults alone")
    parser.add_argument("--zoo", type=Path, default=Path("build/zoo"), help="folder of models and samples")
    parser.add_argument("--downloads", type=Path, default=Path.home() / ".cache/onnxopt/zoo", help="folder of packages")
    parser.add_argument("--out", type=Path, default=Path("build/language_model.json"), help="file for all figures")
    return parser.parse_args()


def _measured(model: Path, data: Path, values: Mapping[str, Any], folder: Path) -> dict[str, object]:
    small, calibration = folder / "small.onnx", _calibration(data)
    context = Context.of(data=calibration, scratch=folder, emit=ignore)
    write_model(make_pass("quantize-weights", values)(read_model(model), context), small)
    step, prompt = _shortest_and_longest(calibration)
    return {
        "file, share of float32's": round(small.stat().st_size / model.stat().st_size, 4),
        **_perplexity(model, small, data),
        "a step is faster by, and from, to": _faster(model, small, step, folder / "step"),
        "a prompt is faster by, and from, to": _faster(model, small, prompt, folder / "prompt"),
    }


def _calibration(data: Path) -> SampleFiles:
    return SampleFiles(tuple(sorted((data / "calibration").glob("*.npz"))))


def _shortest_and_longest(samples: SampleFiles) -> tuple[Sample, Sample]:
    ordered = sorted(samples, key=lambda sample: sample.feeds[IDS].shape[1])
    return ordered[0], ordered[-1]


def _perplexity(model: Path, small: Path, data: Path) -> dict[str, object]:
    scores = onnxopt.evaluate_model(small, data=str(data), metric="perplexity", reference=model)
    assert scores.score is not None
    assert scores.drop is not None
    drop = scores.drop
    return {
        "perplexity": [round(scores.baseline or 0.0, 3), round(scores.score.value, 3)],
        "worse by, and from, to": [None if one is None else round(one, 4) for one in (drop.value, drop.low, drop.high)],
    }


def _faster(model: Path, small: Path, sample: Sample, folder: Path) -> list[float]:
    write_samples(InMemory((sample,)), folder)
    found = onnxopt.compare(model, small, data=str(folder), seconds=SECONDS).speedup
    return [round(one, 3) for one in (found.ratio, found.low, found.high)]


if __name__ == "__main__":
    main()
