"""Random graphs of what couples channels: residuals, concatenations, splits, groups, gates, attention, recurrence."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
from onnx import TensorProto, helper, numpy_helper

from onnxopt.ir.model import Model, normalise

SIZE = 6
"""Height and width."""


class Builder:
    """A graph of images, [batch, channels, 6, 6], that grows block by block; each leaves it valid."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.at, self.width = "x", 3
        self.seen: list[tuple[str, int]] = []

    def node(self, kind: str, *inputs: str, outputs: int = 1, **attributes) -> str:
        names = [f"t{len(self.nodes)}_{place}" for place in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"n{len(self.nodes)}", **attributes))
        return names[0]

    def weight(self, *shape: int) -> str:
        fan = max(int(np.prod(shape[1:])), 1)
        return self.stored((self.random.standard_normal(shape) / np.sqrt(fan)).astype(np.float32))

    def positive(self, *shape: int) -> str:
        return self.stored(self.random.uniform(0.5, 1.5, shape).astype(np.float32))

    def stored(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def numbers(self, *values: int) -> str:
        return self.stored(np.asarray(values, np.int64))

    def step(self, name: str, width: int | None = None) -> None:
        self.at, self.width = name, width or self.width
        self.seen.append((self.at, self.width))

    def conv(self, width: int | None = None) -> None:
        width = width or int(self.random.choice([4, 6, 8, 12]))
        kernel = self.weight(width, self.width, 3, 3)
        inputs = [self.at, kernel, *([self.weight(width)] if self.random.random() < 0.5 else [])]
        self.step(self.node("Conv", *inputs, pads=[1, 1, 1, 1]), width)

    def depthwise(self) -> None:
        times = int(self.random.choice([1, 2]))
        kernel = self.weight(self.width * times, 1, 3, 3)
        self.step(self.node("Conv", self.at, kernel, pads=[1, 1, 1, 1], group=self.width), self.width * times)

    def grouped(self) -> None:
        if self.width % 2 == 0:
            kernel = self.weight(8, self.width // 2, 1, 1)
            self.step(self.node("Conv", self.at, kernel, self.weight(8), group=2), 8)

    def transposed(self) -> None:
        kernel = self.weight(self.width, 6, 1, 1)
        self.step(self.node("ConvTranspose", self.at, kernel, self.weight(6)), 6)

    def norm(self) -> None:
        width = self.width
        scale, shift, mean, var = self.positive(width), self.weight(width), self.weight(width), self.positive(width)
        self.step(self.node("BatchNormalization", self.at, scale, shift, mean, var))

    def instance_norm(self) -> None:
        if self.width > 3:
            # a large epsilon: of what hardly varies, dividing by its deviation would show rounding alone
            scale, shift = self.positive(self.width), self.weight(self.width)
            self.step(self.node("InstanceNormalization", self.at, scale, shift, epsilon=0.1))

    def activation(self) -> None:
        kind = str(self.random.choice(["Relu", "Sigmoid", "HardSwish", "Tanh", "Elu", "Neg"]))
        self.step(self.node(kind, self.at))

    def prelu(self) -> None:
        self.step(self.node("PRelu", self.at, self.positive(self.width, 1, 1)))

    def scaled(self) -> None:
        kind = str(self.random.choice(["Mul", "Add", "Sub", "Div"]))
        self.step(self.node(kind, self.at, self.positive(1, self.width, 1, 1)))

    def residual(self) -> None:
        before, width = self.at, self.width
        self.conv()
        self.activation()
        self.conv(width)
        self.step(self.node(str(self.random.choice(["Add", "Mul", "Max"])), before, self.at))

    def gate(self) -> None:
        before, width = self.at, self.width
        pooled = self.node("GlobalAveragePool", before)
        inner = self.node("Relu", self.node("Conv", pooled, self.weight(4, width, 1, 1), self.weight(4)))
        opened = self.node("HardSigmoid", self.node("Conv", inner, self.weight(width, 4, 1, 1), self.weight(width)))
        self.step(self.node("Mul", before, opened))

    def concat(self) -> None:
        other, width = self.seen[self.random.integers(len(self.seen))]
        self.step(self.node("Concat", self.at, other, axis=1), self.width + width)

    def split(self) -> None:
        if self.width > 3:
            first = int(self.random.integers(1, self.width))
            self.node("Split", self.at, self.numbers(first, self.width - first), outputs=2, axis=1)
            left, right = self.nodes[-1].output
            self.seen.append((right, self.width - first))
            self.step(left, first)

    def sliced(self) -> None:
        if self.width > 3:
            first, last = sorted(self.random.choice(self.width + 1, 2, replace=False).tolist())
            name = self.node("Slice", self.at, self.numbers(first), self.numbers(last), self.numbers(1))
            self.step(name, last - first)

    def gathered(self) -> None:
        places = self.random.integers(0, self.width, 5)
        self.step(self.node("Gather", self.at, self.numbers(*places.tolist()), axis=1), 5)

    def shuffled(self) -> None:
        if self.width % 2 == 0:
            halves = self.node("Reshape", self.at, self.numbers(0, 2, self.width // 2, SIZE, SIZE))
            turned = self.node("Transpose", halves, perm=[0, 2, 1, 3, 4])
            self.step(self.node("Reshape", turned, self.numbers(0, self.width, SIZE, SIZE)))

    def padded(self) -> None:
        pads = self.numbers(0, 1, 0, 0, 0, 2, 0, 0)
        self.step(self.node("Pad", self.at, pads), self.width + 3)

    def blocks(self) -> None:
        if self.width % 4 == 0:
            mode = str(self.random.choice(["DCR", "CRD"]))
            wide = self.node("DepthToSpace", self.at, blocksize=2, mode=mode)
            self.step(self.node("SpaceToDepth", wide, blocksize=2))

    def rows(self) -> None:
        """Channels last, through a MatMul and a LayerNormalization, and back."""
        last = self.node("Transpose", self.at, perm=[0, 2, 3, 1])
        made = self.node("Add", self.weight(8), self.node("MatMul", last, self.weight(self.width, 8)))
        if self.random.random() < 0.5:
            made = self.node("LayerNormalization", made, self.positive(8), self.weight(8))
        self.step(self.node("Transpose", made, perm=[0, 3, 1, 2]), 8)

    def attention(self) -> None:
        """Self-attention of 3 heads over 36 places."""
        flat = self.node("Reshape", self.at, self.numbers(0, self.width, SIZE * SIZE))
        rows = self.node("Transpose", flat, perm=[0, 2, 1])
        parts = []
        for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
            made = self.node("Add", self.node("MatMul", rows, self.weight(self.width, 12)), self.weight(12))
            parts.append(self.node("Transpose", self.node("Reshape", made, self.numbers(0, 0, 3, 4)), perm=perm))
        weights = self.node("Softmax", self.node("MatMul", parts[0], parts[1]), axis=-1)
        mixed = self.node("Transpose", self.node("MatMul", weights, parts[2]), perm=[0, 2, 1, 3])
        joined = self.node("Reshape", mixed, self.numbers(0, 0, 12))
        out = self.node("MatMul", joined, self.weight(12, 8))
        turned = self.node("Transpose", out, perm=[0, 2, 1])
        self.step(self.node("Reshape", turned, self.numbers(0, 8, SIZE, SIZE)), 8)

    def recurrent(self) -> None:
        kind = str(self.random.choice(["LSTM", "GRU"]))
        gates, hidden = {"LSTM": 4, "GRU": 3}[kind], 8
        flat = self.node("Reshape", self.at, self.numbers(0, self.width, SIZE * SIZE))
        steps = self.node("Transpose", flat, perm=[2, 0, 1])
        weights = [self.weight(1, gates * hidden, n) for n in (self.width, hidden)]
        made = self.node(kind, steps, *weights, self.weight(1, 2 * gates * hidden), hidden_size=hidden)
        rows = self.node("Squeeze", made, self.numbers(1))
        turned = self.node("Transpose", rows, perm=[1, 2, 0])
        self.step(self.node("Reshape", turned, self.numbers(0, hidden, SIZE, SIZE)), hidden)


BLOCKS = [
    "conv",
    "depthwise",
    "grouped",
    "transposed",
    "norm",
    "instance_norm",
    "activation",
    "prelu",
    "scaled",
    "residual",
    "gate",
    "concat",
    "split",
    "sliced",
    "gathered",
    "shuffled",
    "padded",
    "blocks",
    "rows",
    "attention",
    "recurrent",
]


def graph(seed: int) -> Model:
    """Return a random classifier or detector whose channels are coupled in many ways."""
    builder = Builder(seed)
    builder.conv()
    for block in builder.random.choice(BLOCKS, 8):
        getattr(builder, str(block))()
        if builder.width > 24:
            builder.conv()
    if builder.random.random() < 0.5:
        pooled = builder.node("Flatten", builder.node("GlobalAveragePool", builder.at))
        width = builder.width
    else:
        pooled, width = builder.node("Flatten", builder.at), builder.width * SIZE * SIZE
    builder.nodes.append(
        helper.make_node("Gemm", [pooled, builder.weight(5, width), builder.weight(5)], ["y"], name="last", transB=1)
    )
    proto = helper.make_model(
        helper.make_graph(
            builder.nodes,
            "random",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
            builder.weights,
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=9,
    )
    made = onnx_ir.from_proto(proto)
    normalise(made)
    return Model(made)
