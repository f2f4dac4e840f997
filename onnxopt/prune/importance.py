"""How much each channel of a group matters: by its weights alone, or by what layers make of it on samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import onnx_ir

from onnxopt.context import Context
from onnxopt.ir.weights import constant_tensor
from onnxopt.prune.activations import Seeing, seen_importance
from onnxopt.prune.groups import Group, Groups, Slot
from onnxopt.prune.taylor import taylor_importance

Scores = np.ndarray[Any, Any]
"""[channels], float64, at least zero: what goes with each channel."""

ByWeights = Literal["l2", "l1", "median", "scale", "random"]
Criterion = Literal["auto", ByWeights, Seeing, "taylor"]


def find_importance(groups: Groups, considered: Sequence[Group], criterion: Criterion, ctx: Context) -> list[Scores]:
    """Return the scores of the channels of each group, [channels].

    Args:
        groups: All groups of the graph.
        considered: Those asked for.
        criterion: ``auto``: ``hessian`` where there are samples, else ``l2``; see ``importance``,
            ``seen_importance`` and ``taylor_importance`` for the others.
        ctx: Gives ``data``, ``scratch`` and ``seed``.

    Raises:
        MissingExtraError: ``taylor`` needs torch, which is not installed.
        PassError: The criterion needs samples, and there are none.
    """
    if criterion == "auto":
        criterion = "hessian" if ctx.has_data else "l2"
    if criterion in _CRITERIA:
        return [importance(groups, group, cast(ByWeights, criterion), ctx.seed) for group in considered]
    if criterion == "taylor":
        found = taylor_importance(groups, considered, ctx.data, ctx)
    else:
        found = seen_importance(groups, considered, cast(Seeing, criterion), ctx.data, ctx)
    pairs = zip(considered, found, strict=True)
    return [scores if scores.any() else importance(groups, group, "l2", ctx.seed) for group, scores in pairs]


def importance(groups: Groups, group: Group, criterion: ByWeights, seed: int) -> Scores:
    """Return what share of a group each of its channels is.

    Args:
        groups: All groups of the graph.
        group: One of them.
        criterion: ``l2`` and ``l1``: of all weights of a channel, in every layer it is in (DepGraph, arXiv:2301.12900);
            ``median``: distance to all other channels (FPGM, arXiv:1811.00250), likewise in every layer it is in;
            ``scale``: the factor of its BatchNormalization (arXiv:1708.06519), ``l2`` where there is none; ``random``:
            the control.
        seed: Of ``random``.
    """
    scores = _CRITERIA[criterion](groups, group, seed)
    total = scores.sum()
    return scores / total if 0 < total < np.inf else np.full(group.width, 1 / group.width)


def _l2(groups: Groups, group: Group, _: int) -> Scores:
    return _over(groups, group, _weights(group), np.square)


def _l1(groups: Groups, group: Group, _: int) -> Scores:
    return _over(groups, group, _weights(group), np.abs)


def _median(groups: Groups, group: Group, _: int) -> Scores:
    """Return the summed distances, over their mean in each weight: what is near all others is best replaced by them."""
    total = np.zeros(group.width)
    for slot in _weights(group):
        rows = _rows(groups, group, slot)
        squares = np.square(rows).sum(1)
        distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0)).sum(1)
        total += distances / max(float(distances.mean()), 1e-30)
    return total


def _scale(groups: Groups, group: Group, seed: int) -> Scores:
    found = [slot for slot in group.slots if _is_scale(slot)]
    if not found:
        return _l2(groups, group, seed)
    return _over(groups, group, found, np.abs)


def _random(_: Groups, group: Group, seed: int) -> Scores:
    return np.random.default_rng([seed, *group.name.encode()]).random(group.width)


_CRITERIA: Mapping[str, Callable[[Groups, Group, int], Scores]] = {
    "l2": _l2,
    "l1": _l1,
    "median": _median,
    "scale": _scale,
    "random": _random,
}


def _weights(group: Group) -> Iterator[Slot]:
    """Yield the axes that are of weights of layers, not of biases, masks or caches; all where there are no others."""
    layers = [slot for slot in group.slots if any(_weighs(node, index) for node, index in slot.value.uses())]
    yield from layers or group.slots


_MULTIPLIED: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), (1,)),
    **dict.fromkeys(("Einsum", "Gemm", "MatMul"), (0, 1)),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), (1, 2)),
    "Gather": (0,),
}
"""Inputs of operators that are weights."""


def _weighs(node: onnx_ir.Node, index: int) -> bool:
    """Whether an input of a node is the weight of a layer, or an embedding."""
    packed = node.op_type == "Attention" and node.domain == "com.microsoft"
    return index in ((1,) if packed else _MULTIPLIED.get(node.op_type, ()))


def _is_scale(slot: Slot) -> bool:
    return any(use.node.op_type == "BatchNormalization" and use.idx == 1 for use in slot.value.uses())


def _rows(groups: Groups, group: Group, slot: Slot) -> np.ndarray[Any, Any]:
    """Return the weights of each channel, [channels, weights], float64; those of several positions lie side by side."""
    array = _moved(slot)
    classes = groups.solved.classes[groups.stored[slot.value, slot.axis]]
    return np.stack([array[classes == one].reshape(-1) for one in group.classes])


def _over(groups: Groups, group: Group, slots: Iterable[Slot], of: Callable[[Any], Any]) -> Scores:
    """Return the sum over the weights of each channel along these axes."""
    total = np.zeros(int(groups.solved.classes.max()) + 1)
    for slot in slots:
        classes = groups.solved.classes[groups.stored[slot.value, slot.axis]]
        total += np.bincount(classes, of(_moved(slot)).sum(1), len(total))
    return total[group.classes]


def _moved(slot: Slot) -> np.ndarray[Any, Any]:
    """Return a weight with the axis first, [positions, rest], float64."""
    tensor = constant_tensor(slot.value)
    assert tensor is not None
    array = np.moveaxis(tensor.numpy().astype(np.float64), slot.axis, 0)
    return array.reshape(len(array), -1)
