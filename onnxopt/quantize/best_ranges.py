"""The method ``auto``: ranges by what they do to the outputs, first for all tensors together, then for some at a time.

Which way of cutting ranges is best differs from model to model by several decibels, and no error of a tensor alone
tells it: MiniLM's outputs need the outliers that least squares cut off, those of PP-OCR's recognition lose by them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import get_args

from onnxopt.context import Context, Progress
from onnxopt.data.sample import Samples
from onnxopt.quantize.calibrated import Ready
from onnxopt.quantize.ranges import Method, Range, find_range
from onnxopt.quantize.sensitivity import RoundingTrials

METHODS: tuple[Method, ...] = get_args(Method)

_GROUPS = 8
_WORTH_IT = 0.05
"""dB; a smaller gain on a few samples says nothing."""


def with_best_ranges(ready: Ready, samples: Samples, ctx: Context) -> Ready:
    """Return a model made ready, with other ranges where the outputs keep more with all layers rounded.

    Args:
        ready: With what was seen of each tensor.
        samples: The outputs are judged on.
        ctx: Gives ``scratch``; told of progress.

    Raises:
        UnverifiableError: No float output varies on the samples.
    """
    names = {layer.name for layer in ready.layers}
    by_method = {method: _ranges(ready, method) for method in METHODS}
    with closing(RoundingTrials(ready, samples, ctx)) as trials:

        def kept(ranges: Mapping[str, Range]) -> float:
            return trials.fidelity_of(replace(ready, ranges=ranges).quantized(names))

        found = {method: kept(ranges) for method, ranges in by_method.items()}
        best = max(METHODS, key=lambda method: found[method])
        chosen, most = by_method[best], found[best]
        for index, group in enumerate(_groups(by_method)):
            for tried in _tried(chosen, by_method, group):
                now = kept(tried)
                if now > most + _WORTH_IT:
                    chosen, most = tried, now
            ctx.emit(Progress("choosing ranges", index + 1, _GROUPS))
    return replace(ready, ranges=chosen)


def _ranges(ready: Ready, method: Method) -> dict[str, Range]:
    scheme = ready.kernels.activations
    return {name: find_range(seen, method, scheme) for name, seen in ready.seen.histograms.items()}


def _tried(
    chosen: Mapping[str, Range], by_method: Mapping[Method, Mapping[str, Range]], group: list[str]
) -> Iterator[dict[str, Range]]:
    """Yield the ranges chosen with those of a group by each method that gives others."""
    for ranges in by_method.values():
        tried = {**chosen, **{name: ranges[name] for name in group}}
        if tried != chosen:
            yield tried


def _groups(by_method: Mapping[Method, Mapping[str, Range]]) -> Iterator[list[str]]:
    """Yield tensors in groups, those first about which the methods differ most."""
    widths = {
        name: [high - low for low, high in (ranges[name] for ranges in by_method.values())]
        for name in next(iter(by_method.values()))
    }
    order = sorted(widths, key=lambda name: min(widths[name]) / (max(widths[name]) or 1.0))
    size = -(-len(order) // _GROUPS)
    for first in range(0, len(order), max(size, 1)):
        yield order[first : first + size]
