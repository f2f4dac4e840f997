"""Seconds each node of a model takes in ONNX Runtime, by the runtime's own profile."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from onnxopt.compile.engine import Feeds
from onnxopt.compile.isolation import Limits, run_isolated
from onnxopt.compile.ort import OnnxRuntime
from onnxopt.targets.target import Target

_KERNEL = "_kernel_time"
_MADE_UP = re.compile(r"^fused |(_nchwc|_nhwc|_token_\d+|(/\w+[Ff]usion/?)+)$")
"""What onnxruntime adds to a node's name, or to that of what it makes, when it replaces the node."""


def node_seconds(
    model: Path, feeds: Sequence[Feeds], target: Target, *, repeats: int = 10, limits: Limits | None = None
) -> dict[str, float]:
    """Return the median seconds of each node that runs, by the name of the node, or of what it makes, before fusing.

    Nodes the runtime fused into another have no entry of their own.

    Args:
        model: The ``.onnx`` file.
        feeds: What to run, in turn; times are summed over them.
        target: Gives the threads.
        repeats: Runs of each; the median counts.
        limits: Of the child it runs in.

    Raises:
        EngineError: The runtime cannot load or run the model.
    """
    return _summed(0, model, feeds, target, repeats, limits)


def operator_seconds(
    model: Path, feeds: Sequence[Feeds], target: Target, *, repeats: int = 10, limits: Limits | None = None
) -> dict[str, float]:
    """Return the median seconds of what runs, by operator, fused ones as the runtime calls them."""
    return _summed(1, model, feeds, target, repeats, limits)


def _summed(
    key: int, model: Path, feeds: Sequence[Feeds], target: Target, repeats: int, limits: Limits | None
) -> dict[str, float]:
    """Return what nodes take, summed by their names (0) or operators (1)."""
    place = "onnxopt.profile.operators:profile_nodes"
    told = run_isolated(place, str(model), [dict(one) for one in feeds], target, repeats, limits=limits)
    total: dict[str, float] = defaultdict(float)
    for kind, seconds in told:
        total[kind[key]] += seconds
    return dict(total)


def profile_nodes(
    model: str, feeds: Sequence[Feeds], target: Target, repeats: int
) -> list[tuple[tuple[str, str], float]]:
    """Return name, operator and median seconds of each node for each of the feeds; called in the child."""
    found: list[tuple[tuple[str, str], float]] = []
    for one in feeds:
        with tempfile.TemporaryDirectory() as folder:
            written = OnnxRuntime().profile(Path(model), target, [one] * repeats, Path(folder))
            found += _medians(written).items()
    return found


def _medians(written: Path) -> Mapping[tuple[str, str], float]:
    taken: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in json.loads(written.read_text()):
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_KERNEL):
            node = _MADE_UP.sub("", name.removesuffix(_KERNEL))
            taken[node, event["args"]["op_name"]].append(event["dur"] / 1e6)
    return {node: statistics.median(seconds) for node, seconds in taken.items()}
