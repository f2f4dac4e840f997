"""The menu: what can be named in a recipe or on the command line, and where it lives.

Entries are strings, so that listing or misspelling a name imports nothing. Other packages add to it with entry
points in the groups ``onnxopt.passes``, ``onnxopt.backends``, ``onnxopt.sources`` and ``onnxopt.metrics``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal

from onnxopt.errors import UsageError, did_you_mean

Kind = Literal["passes", "backends", "sources", "metrics"]

BUILTIN: Mapping[Kind, Mapping[str, str]] = {
    "passes": {
        "rewrite": "onnxopt.rewrite.rewrite:Rewrite",
        "fold-constants": "onnxopt.rewrite.fold:FoldConstants",
        "freeze-weights": "onnxopt.rewrite.cleanup:FreezeWeights",
        "lift-constants": "onnxopt.rewrite.cleanup:LiftConstants",
        "merge-duplicates": "onnxopt.rewrite.cleanup:MergeDuplicates",
        "remove-identities": "onnxopt.rewrite.cleanup:RemoveIdentities",
        "remove-unused": "onnxopt.rewrite.cleanup:RemoveUnused",
        "fix-shapes": "onnxopt.rewrite.fix_shapes:FixShapes",
        "convert-opset": "onnxopt.rewrite.convert_opset:ConvertOpset",
        "equalize-layers": "onnxopt.quantize.equalize:EqualizeLayers",
        "smooth-activations": "onnxopt.quantize.smooth:SmoothActivations",
        "split-outliers": "onnxopt.quantize.split_outliers:SplitOutliers",
        "round-weights": "onnxopt.quantize.round_weights:RoundWeights",
        "correct-bias": "onnxopt.quantize.correct_bias:CorrectBias",
        "quantize-dynamic": "onnxopt.quantize.dynamic:QuantizeDynamic",
        "quantize-static": "onnxopt.quantize.static:QuantizeStatic",
        "quantize-mixed": "onnxopt.quantize.mixed:QuantizeMixed",
        "quantize-weights": "onnxopt.quantize.weights:QuantizeWeights",
        "prune-channels": "onnxopt.prune.channels:PruneChannels",
        "prune-heads": "onnxopt.prune.channels:PruneHeads",
        "prune-layers": "onnxopt.prune.depth:PruneLayers",
        "prune-weights": "onnxopt.prune.weights:PruneWeights",
        "factorise-weights": "onnxopt.prune.low_rank:FactoriseWeights",
        "separate-convolutions": "onnxopt.prune.separable:SeparateConvolutions",
        "prune-n-m": "onnxopt.prune.weights:PruneNOfM",
        "reconstruct-weights": "onnxopt.prune.recover:ReconstructWeights",
        "match-statistics": "onnxopt.prune.recover:MatchStatistics",
        "correct-means": "onnxopt.prune.recover:CorrectMeans",
        "cast-bfloat16": "onnxopt.quantize.cast:CastBfloat16",
        "cast-float16": "onnxopt.quantize.cast:CastFloat16",
    },
    "backends": {
        "ort": "onnxopt.compile.ort:OnnxRuntime",
        "openvino": "onnxopt.compile.openvino:OpenVino",
        "reference": "onnxopt.compile.reference:Reference",
        "fake": "onnxopt.compile.fake:Fake",
    },
    "sources": {
        "files": "onnxopt.data.files:Files",
        "stacked": "onnxopt.data.stacked:Stacked",
        "images": "onnxopt.data.images:Images",
        "text": "onnxopt.data.text:Text",
        "audio": "onnxopt.data.audio:Audio",
        "function": "onnxopt.data.function:Function",
        "synthetic": "onnxopt.data.synthetic:Synthetic",
    },
    "metrics": {
        "top1": "onnxopt.evaluate.metrics:Top1",
        "top5": "onnxopt.evaluate.metrics:Top5",
        "f1": "onnxopt.evaluate.metrics:F1",
        "auc": "onnxopt.evaluate.metrics:Auc",
        "pearson": "onnxopt.evaluate.metrics:Pearson",
        "spearman": "onnxopt.evaluate.metrics:Spearman",
        "mse": "onnxopt.evaluate.metrics:MeanSquaredError",
        "cer": "onnxopt.evaluate.metrics:CharacterErrorRate",
        "wer": "onnxopt.evaluate.metrics:WordErrorRate",
        "perplexity": "onnxopt.evaluate.metrics:Perplexity",
        "sqnr": "onnxopt.evaluate.metrics:Sqnr",
        "cosine": "onnxopt.evaluate.metrics:Cosine",
        "agreement": "onnxopt.evaluate.metrics:Agreement",
    },
}


def names(kind: Kind) -> tuple[str, ...]:
    """Return every known name of a kind: the built-in ones in the order of the menu, then other packages'."""
    return (*BUILTIN[kind], *(name for name in sorted(_entries(kind)) if name not in BUILTIN[kind]))


def resolve(kind: Kind, name: str) -> Any:
    """Import and return what a name stands for.

    Raises:
        UsageError: No such name; the hint gives the closest one.
    """
    place = BUILTIN[kind].get(name) or _entries(kind).get(name)
    if place is None:
        singular = {"passes": "pass"}.get(kind, kind.removesuffix("s"))
        raise UsageError(f"there is no {singular} {name!r}", hint=did_you_mean(name, names(kind)))
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


@cache
def _entries(kind: Kind) -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=f"onnxopt.{kind}")}
