"""Shape inference that gives what it can: a model whose shapes cannot all be known stays usable."""

from __future__ import annotations

from collections.abc import Collection

import onnx
import onnx_ir
import onnx_ir.passes.common as onnx_ir_passes

from onnxopt.ir.traverse import all_graphs


def infer_shapes(model: onnx_ir.Model, *, outputs: bool = False) -> str | None:
    """Fill in the shapes and dtypes of intermediate values, in place.

    What graph inputs declare is never changed. An operator onnx has no rule for leaves its outputs unknown and
    inference goes on behind it.

    Args:
        model: The model.
        outputs: Whether what the graph's outputs declare may be replaced by what is inferred.

    Returns:
        None, or the reason why nothing could be inferred; the model is then as it was.
    """
    if not outputs and _all_known(model):
        return None
    kept = [*model.graph.inputs, *([] if outputs else model.graph.outputs)]
    declared = [(value, value.shape, value.type) for value in kept]
    try:
        _infer(model)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError, TypeError) as error:
        return str(error).strip().splitlines()[0]
    finally:
        for value, shape, kind in declared:
            value.shape, value.type = shape, kind
    return None


def forget_shapes(model: onnx_ir.Model) -> None:
    """Drop the shapes of intermediate values: exporters are known to leave wrong ones."""
    for graph in all_graphs(model):
        for node in graph:
            for value in node.outputs:
                if not value.is_graph_output():
                    value.shape = None


def forget_other_shapes(model: onnx_ir.Model, kept: Collection[str | None]) -> onnx_ir.Model:
    """Drop types and shapes of intermediate values but those of these names, in place, and return the model.

    A file that tells more than its input did is optimised otherwise: ONNX Runtime fuses SkipLayerNormalization
    where it knows shapes, and is a tenth slower with it on a small BERT.
    """
    for graph in all_graphs(model):
        for value in (value for node in graph for value in node.outputs):
            if value.name not in kept and not value.is_graph_output():
                value.shape = value.type = None
    return model


def known_shape(value: onnx_ir.Value | None) -> tuple[int, ...] | None:
    """Return a value's shape when every dimension is a number, else None."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return tuple(dim for dim in value.shape if isinstance(dim, int))


def _all_known(model: onnx_ir.Model) -> bool:
    """Whether every dimension of every value is a number, or a name that an input gave: there is no more to infer."""
    given = {dim.value for value in model.graph.inputs for dim in value.shape or () if not isinstance(dim, int)}
    values = (value for graph in all_graphs(model) for node in graph for value in node.outputs)
    return all(value.dtype is not None and _is_known(value.shape, given - {None}) for value in values)


def _is_known(shape: onnx_ir.Shape | None, names: Collection[str | None]) -> bool:
    return shape is not None and all(isinstance(dim, int) or dim.value in names for dim in shape)


def _infer(model: onnx_ir.Model) -> None:
    onnx_ir_passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
