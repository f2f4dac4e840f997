"""Which operator does what to the labels of axes; whatever is not here keeps all that it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import onnx_ir

from onnxopt.prune import attention, layers, reshaping
from onnxopt.prune.walk import StuckError, Walk

Follow = Callable[[Walk, onnx_ir.Node], None]

_ONE_BY_ONE = (
    "Abs Acos Acosh Asin Asinh Atan Atanh Cast Ceil Celu Clip Cos Cosh Dropout Elu Erf Exp Floor Gelu"
    " HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not QuickGelu Reciprocal Relu Round Selu Shrink"
    " Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu"
)
_BROADCAST = (
    "Add And BiasGelu BitShift Div Equal FastGelu Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or PRelu"
    " Pow Sub Sum Where Xor"
)
_REDUCE = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
)
_POOL = "AveragePool GlobalAveragePool GlobalMaxPool GlobalLpPool LpPool MaxPool"
_ALONG = "ArgMax ArgMin CumSum Hardmax LogSoftmax LpNormalization Softmax TopK"


def _all(names: str, follow: Follow) -> Iterable[tuple[str, Follow]]:
    return ((name, follow) for name in names.split())


FOLLOWED: Mapping[str, Follow] = dict(
    [
        *_all(_ONE_BY_ONE, layers.follow_same),
        *_all(_BROADCAST, layers.follow_elementwise),
        *_all(_REDUCE, layers.follow_reduce),
        *_all(_POOL, layers.follow_pool),
        *_all(_ALONG, layers.follow_along),
        *_all("Conv", layers.follow_conv),
        *_all("BatchNormalization InstanceNormalization", layers.follow_channel_norm),
        *_all("LayerNormalization RMSNormalization SimplifiedLayerNormalization", layers.follow_layer_norm),
        *_all("SkipLayerNormalization SkipSimplifiedLayerNormalization", layers.follow_skip_norm),
        ("EmbedLayerNormalization", layers.follow_embed_norm),
        ("Attention", attention.follow_attention),
        ("MultiHeadAttention", attention.follow_multi_head),
        ("GroupQueryAttention", attention.follow_group_query),
        ("RotaryEmbedding", attention.follow_rotary),
        *_all("QuantizeLinear DequantizeLinear", layers.follow_rounding),
        *_all("LSTM GRU RNN", layers.follow_recurrent),
        ("ConvTranspose", layers.follow_conv_transpose),
        ("Gemm", layers.follow_gemm),
        ("MatMul", layers.follow_matmul),
        ("Einsum", layers.follow_einsum),
        ("GroupNormalization", layers.follow_group_norm),
        ("Concat", reshaping.follow_concat),
        ("Split", reshaping.follow_split),
        ("Slice", reshaping.follow_slice),
        ("Gather", reshaping.follow_gather),
        ("Transpose", reshaping.follow_transpose),
        *_all("Squeeze Unsqueeze", reshaping.follow_squeeze),
        *_all("Reshape Flatten", reshaping.follow_reshape),
        ("Expand", reshaping.follow_expand),
        ("Shape", reshaping.follow_shape),
        ("ConstantOfShape", reshaping.follow_fill),
        ("Tile", reshaping.follow_tile),
        ("Pad", reshaping.follow_pad),
        ("Resize", reshaping.follow_resize),
        *_all("DepthToSpace SpaceToDepth", reshaping.follow_blocks),
        *_all("Range", reshaping.follow_nothing),
    ]
)
"""By operator, of ONNX's own domain and of com.microsoft."""


def follow_graph(graph: onnx_ir.Graph, walk: Walk) -> None:
    """Label every axis of a sorted graph whose weights are initializers and whose shapes are inferred."""
    for node in graph:
        known = node.domain in ("", "ai.onnx", "com.microsoft")
        walk.visit(node, FOLLOWED.get(node.op_type, _stay) if known else _stay)
    walk.finish(graph)


def _stay(_: Walk, node: onnx_ir.Node) -> None:
    raise StuckError(f"{node.op_type} is not followed")
