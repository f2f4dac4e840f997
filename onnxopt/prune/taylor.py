"""How much each channel matters by what the outputs lose without it, to first order: from gradients, in torch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from onnxopt.compile.isolation import Child, Limits
from onnxopt.context import Context, Progress
from onnxopt.data.sample import Array, Samples
from onnxopt.evaluate.collect import read_ahead
from onnxopt.ir.layer_weights import LAYERS
from onnxopt.ir.model import Model
from onnxopt.ir.write import write_model
from onnxopt.lift.extra import need_torch
from onnxopt.lift.gate import Gate
from onnxopt.prune.activations import axis_read
from onnxopt.prune.groups import Group, Groups, Slot

_MOST_SAMPLES = 256
"""More say little more."""

_LIMITS = Limits(seconds=1800)


def taylor_importance(groups: Groups, considered: Sequence[Group], samples: Samples, ctx: Context) -> list[Array]:
    """Return what the outputs lose without each channel, [channels] for each group, float64.

    Args:
        groups: All groups of the graph.
        considered: Those asked for.
        samples: Run forth and back, one at a time; the first 256.
        ctx: Gives ``scratch`` and ``seed``; told of progress.

    Raises:
        EngineError: Gradients do not pass through a node.
        MissingExtraError: torch is not installed.
    """
    need_torch("criterion taylor")
    gates = [_gates(groups, group) for group in considered]
    samples = samples[:_MOST_SAMPLES]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(dir=ctx.scratch)))
        file, *_ = write_model(Model(groups.graph), folder / "model.onnx")
        child = stack.enter_context(Child(_LIMITS))
        widths = [group.width for group in considered]
        child.make("onnxopt.lift.gates:GateGradients", str(file), gates, widths, ctx.seed)
        for done, batch in enumerate(read_ahead(samples)):
            child.call("add", batch)
            ctx.emit(Progress("following gradients", done + 1, len(samples)))
        found: list[Array] = child.call("means")
    return found


def _gates(groups: Groups, group: Group) -> list[Gate]:
    """Return where layers read the channels of a group; every weight they are in where none does by its weight."""
    reading = [slot for slot in group.slots if _is_read_along(slot)]
    return [_gate(groups, group, slot) for slot in reading or group.slots]


def _is_read_along(slot: Slot) -> bool:
    """Whether a layer multiplies what it reads with a weight along this axis."""
    return len(slot.value.shape or ()) > 1 and any(
        index == 1 and node.op_type in LAYERS and slot.axis == axis_read(node) for node, index in slot.value.uses()
    )


def _gate(groups: Groups, group: Group, slot: Slot) -> Gate:
    channels = np.full(int(groups.solved.classes.max()) + 1, -1)
    channels[group.classes] = np.arange(group.width)
    return Gate(slot.value.name or "", slot.axis, channels[groups.solved.classes[groups.stored[slot.value, slot.axis]]])
