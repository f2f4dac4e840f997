"""Random valid graphs, made of what the rules look for and what only looks like it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir
from onnx import TensorProto, helper, numpy_helper

from onnxopt.ir.model import Model, normalise

OPSET = 20
_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "bool": TensorProto.BOOL,
}


@dataclass(frozen=True)
class Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def is_float(self) -> bool:
        return self.dtype.startswith("float")


@dataclass
class Builder:
    """A graph that grows by one node at a time; every step leaves it valid."""

    random: np.random.Generator
    tensors: list[Tensor] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def one_of(self, *items):
        return items[self.random.integers(len(items))]

    def pick(self, fits: Callable[[Tensor], bool]) -> Tensor | None:
        found = [tensor for tensor in self.tensors if fits(tensor)]
        return self.one_of(*found[-6:]) if found else None

    def weight(self, array: np.ndarray) -> str:
        """Return an initializer, shared with an equal one now and then, or a Constant node."""
        if self.weights and self.random.random() < 0.3:
            for old in self.weights:
                held = numpy_helper.to_array(old)
                if held.dtype == array.dtype and np.array_equal(held, array):
                    return old.name
        name = f"w{len(self.weights) + len(self.nodes)}"
        tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
        if self.random.random() < 0.2:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.weights.append(tensor)
        return name

    def add(self, operator: str, inputs: list[str], dtype: str, *shapes: tuple[int, ...], **attributes) -> None:
        names = [f"t{len(self.tensors) + i}" for i in range(len(shapes))]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        self.tensors += [Tensor(name, dtype, shape) for name, shape in zip(names, shapes, strict=True)]

    def ints(self, *values: int) -> str:
        return self.weight(np.array(values, np.int64))


def graph(seed: int, size: int = 14) -> Model:
    """Return a model of about ``size`` nodes; the same for the same seed."""
    random = np.random.default_rng(seed)
    build = Builder(random)
    for index in range(random.integers(1, 3)):
        shape = tuple(
            int(d) for d in random.choice([0, 1, 2, 3, 4], size=random.integers(1, 5), p=[0.03, 0.27, 0.3, 0.2, 0.2])
        )
        build.tensors.append(
            Tensor(f"x{index}", build.one_of("float32", "float32", "float32", "float16", "int64", "bool"), shape)
        )
    inputs = list(build.tensors)
    for _ in range(size):
        build.one_of(*STEPS)(build)
    made = [tensor for tensor in build.tensors if tensor not in inputs] or [inputs[0]]
    if made == [inputs[0]]:
        build.add("Identity", [inputs[0].name], inputs[0].dtype, inputs[0].shape)
        made = build.tensors[-1:]
    read = {name for node in build.nodes for name in node.input}
    outputs = [tensor for tensor in made if tensor.name not in read] or made[-1:]
    outputs += [tensor for tensor in made if tensor not in outputs and random.random() < 0.1]
    proto = helper.make_model(
        helper.make_graph(
            build.nodes, "random", [_info(t) for t in inputs], [_info(t) for t in outputs], build.weights
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=9,
    )
    onnx.checker.check_model(proto, full_check=True)
    made = onnx_ir.from_proto(proto)
    normalise(made)
    return Model(made)


def feeds(model: Model, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    found = {}
    for port in model.signature.inputs:
        array = random.standard_normal([int(dim) for dim in port.shape or ()])
        found[port.name] = (array > 0) if port.dtype == "bool" else (3 * array).astype(port.dtype)
    return found


def _info(tensor: Tensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, _TYPES[tensor.dtype], tensor.shape)


def _unary(build: Builder) -> None:
    x = build.pick(lambda t: t.dtype == "float32")
    if x:
        build.add(
            build.one_of("Relu", "Relu", "Neg", "Abs", "Sigmoid", "Identity", "Dropout", "HardSigmoid", "Erf", "Floor"),
            [x.name],
            x.dtype,
            x.shape,
        )


def _cast(build: Builder) -> None:
    x = build.pick(lambda t: True)
    if x:
        to = (
            build.one_of("float32", "float32", "float64", "float16", "int64", "int32")
            if x.dtype != "float16"
            else "float32"
        )
        build.add("Cast", [x.name], to, x.shape, to=_TYPES[to])


def _logic(build: Builder) -> None:
    c = build.pick(lambda t: t.dtype == "bool")
    if c is None:
        return
    if build.random.random() < 0.5:
        build.add("Not", [c.name], "bool", c.shape)
        return
    x = build.pick(lambda t: t.is_float)
    if x:
        shape = np.broadcast_shapes(c.shape, x.shape) if _fit(c.shape, x.shape) else None
        other = build.weight(np.full((), 2, x.dtype))
        if shape is not None:
            build.add("Where", [c.name, x.name, other], x.dtype, shape)


def _fit(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(x == y or 1 in (x, y) for x, y in zip(a[::-1], b[::-1], strict=False))


def _arithmetic(build: Builder) -> None:
    x = build.pick(lambda t: t.is_float)
    if x is None:
        return
    operator = build.one_of("Add", "Mul", "Sub", "Div", "Max", "Pow" if x.dtype == "float32" else "Add")
    value = build.one_of(0, 1, 0.5, 3, 6) if operator != "Pow" else build.one_of(1, 2)
    if operator == "Div" and value == 0:
        value = 2
    shape = build.one_of(
        (), (1,), x.shape, (1, *x.shape), *([(x.shape[1], *[1] * (len(x.shape) - 2))] if len(x.shape) > 1 else [])
    )
    array = np.full(shape, value, x.dtype)
    if operator in ("Add", "Mul") and build.random.random() < 0.4:
        array = build.random.standard_normal(shape).astype(x.dtype) if shape else array
    names = [x.name, build.weight(array)]
    if build.random.random() < 0.3 and operator not in ("Pow", "Div"):
        names.reverse()
    build.add(operator, names, x.dtype, np.broadcast_shapes(x.shape, shape))


def _together(build: Builder) -> None:
    x = build.pick(lambda t: t.is_float)
    y = build.pick(lambda t: x is not None and t.dtype == x.dtype and t.shape == x.shape)
    if x and y:
        build.add(build.one_of("Add", "Mul", "Max", "Sub"), [x.name, y.name], x.dtype, x.shape)


def _clip(build: Builder) -> None:
    x = build.pick(lambda t: t.dtype == "float32")
    if x:
        low, high = (
            build.weight(np.array(build.one_of(-1, 0), np.float32)),
            build.weight(np.array(build.one_of(1, 6), np.float32)),
        )
        build.add("Clip", [x.name, *build.one_of([low, high], [low], ["", high])], x.dtype, x.shape)


def _move(build: Builder) -> None:
    x = build.pick(lambda t: len(t.shape) > 1)
    if x:
        order = [int(i) for i in build.random.permutation(len(x.shape))]
        build.add("Transpose", [x.name], x.dtype, tuple(x.shape[i] for i in order), perm=order)


def _reshape(build: Builder) -> None:
    x = build.pick(lambda t: 0 not in t.shape and bool(t.shape))
    if x is None:
        return
    total = int(np.prod(x.shape))
    match build.random.integers(5):
        case 0:
            build.add("Reshape", [x.name, build.ints(-1)], x.dtype, (total,))
        case 1:
            build.add("Reshape", [x.name, build.ints(0, -1)], x.dtype, (x.shape[0], total // x.shape[0]))
        case 2:
            build.add("Flatten", [x.name], x.dtype, (x.shape[0], total // x.shape[0]))
        case 3:
            axis = int(build.random.integers(len(x.shape) + 1))
            build.add("Unsqueeze", [x.name, build.ints(axis)], x.dtype, (*x.shape[:axis], 1, *x.shape[axis:]))
        case _:
            axes = [i for i, size in enumerate(x.shape) if size == 1]
            if axes and len(x.shape) > 1:
                axis = build.one_of(*axes)
                build.add(
                    "Squeeze",
                    [x.name, build.ints(axis - build.one_of(0, len(x.shape)))],
                    x.dtype,
                    (*x.shape[:axis], *x.shape[axis + 1 :]),
                )


def _cut(build: Builder) -> None:
    x = build.pick(lambda t: len(t.shape) > 0 and max(t.shape) > 1)
    if x is None:
        return
    axis = int(np.argmax(x.shape))
    size = x.shape[axis]
    if build.random.random() < 0.5:
        start, end = build.one_of((0, size), (0, 2**40), (1, size), (0, size - 1))
        left = len(range(*slice(start, end).indices(size)))
        build.add(
            "Slice",
            [x.name, build.ints(start), build.ints(end), build.ints(axis)],
            x.dtype,
            (*x.shape[:axis], left, *x.shape[axis + 1 :]),
        )
        return
    parts = [(*x.shape[:axis], part, *x.shape[axis + 1 :]) for part in (1, size - 1)]
    build.add("Split", [x.name, build.ints(1, size - 1)], x.dtype, *parts, axis=axis)
    if build.random.random() < 0.6:
        names = [tensor.name for tensor in build.tensors[-2:]]
        if build.random.random() < 0.3:
            names.reverse()
        build.add("Concat", names, x.dtype, x.shape, axis=axis)


def _join(build: Builder) -> None:
    x = build.pick(lambda t: len(t.shape) > 0)
    if x:
        axis, count = int(build.random.integers(len(x.shape))), build.one_of(1, 2)
        build.add(
            "Concat",
            [x.name] * count,
            x.dtype,
            (*x.shape[:axis], count * x.shape[axis], *x.shape[axis + 1 :]),
            axis=axis,
        )


def _dense(build: Builder) -> None:
    x = build.pick(lambda t: t.dtype == "float32" and len(t.shape) > 1 and t.shape[-1] > 0)
    if x is None:
        return
    columns = int(build.random.integers(1, 5))
    kernel = build.random.standard_normal((x.shape[-1], columns)).astype(np.float32)
    if len(x.shape) == 2 and build.random.random() < 0.5:
        bias = build.weight(
            build.random.standard_normal(build.one_of((columns,), (1,), (1, columns))).astype(np.float32)
        )
        build.add(
            "Gemm",
            [x.name, build.weight(kernel), *build.one_of([bias], [])],
            x.dtype,
            (x.shape[0], columns),
            alpha=build.one_of(1.0, 0.5),
        )
    else:
        build.add("MatMul", [x.name, build.weight(kernel)], x.dtype, (*x.shape[:-1], columns))
        if build.random.random() < 0.3:
            row = build.weight(build.random.standard_normal(columns).astype(np.float32))
            build.add("Add", [build.tensors[-1].name, row], x.dtype, (*x.shape[:-1], columns))


def _conv(build: Builder) -> None:
    x = build.pick(lambda t: t.dtype == "float32" and len(t.shape) in (3, 4) and 0 not in t.shape)
    if x is None:
        return
    axes, channels = len(x.shape) - 2, x.shape[1]
    size = build.one_of(1, 3)
    group = build.one_of(1, channels)
    out = build.one_of(channels, 2 * channels)
    sizes = (size, 1) if x.shape[-1] == 1 and axes == 2 else (size,) * axes
    kernel = build.random.standard_normal((out, channels // group, *sizes)).astype(np.float32)
    names = [x.name, build.weight(kernel)]
    if build.random.random() < 0.5:
        names.append(build.weight(build.random.standard_normal(out).astype(np.float32)))
    shape = (x.shape[0], out, *x.shape[2:])
    build.add("Conv", names, x.dtype, shape, group=group, pads=[one // 2 for one in sizes] * 2)
    behind = build.random.random()
    if behind < 0.5:
        scale, shift, mean, var = build.random.standard_normal((4, out)).astype(np.float32)
        made = [build.weight(array) for array in (scale, shift, mean, np.abs(var) + np.float32(0.1))]
        build.add("BatchNormalization", [build.tensors[-1].name, *made], x.dtype, shape)
    elif behind < 0.65:
        slopes = np.linspace(-0.5, 1.5, out, dtype=np.float32).reshape(out, *[1] * axes)
        build.add("PRelu", [build.tensors[-1].name, build.weight(slopes)], x.dtype, shape)


def _pad(build: Builder) -> None:
    x = build.pick(lambda t: t.dtype == "float32" and len(t.shape) in (3, 4) and 0 not in t.shape)
    if x:
        by = build.one_of(0, 1)
        pads = [0, 0, *[by] * (len(x.shape) - 2)] * 2
        build.add("Pad", [x.name, build.ints(*pads)], x.dtype, (*x.shape[:2], *(size + 2 * by for size in x.shape[2:])))


def _branch(build: Builder) -> None:
    x = build.pick(lambda t: t.is_float)
    if x is None:
        return
    name = f"b{len(build.tensors)}"

    def side(operators: list[str]) -> onnx.GraphProto:
        nodes, last = [], x.name
        for i, operator in enumerate(operators):
            nodes.append(helper.make_node(operator, [last], [f"{name}_{operators[0]}_{i}"]))
            last = nodes[-1].output[0]
        return helper.make_graph(nodes, "side", [], [helper.make_tensor_value_info(last, _TYPES[x.dtype], x.shape)])

    flag = build.pick(lambda t: t.dtype == "bool" and t.shape in ((), (1,)))
    condition = flag.name if flag else build.weight(np.array(bool(build.random.integers(2))))
    sides = {"then_branch": side(["Neg", "Neg", "Abs"]), "else_branch": side(["Abs", "Abs"])}
    build.add("If", [condition], x.dtype, x.shape, **sides)


def _loop(build: Builder) -> None:
    """Add a Loop of none to several trips that may stop early, whose body reads the outside.

    What it reads there is not what it carries: ONNX Runtime 1.32 loses such a value now and then.
    """
    x = build.pick(lambda t: t.dtype == "float32")
    if x is None:
        return
    name, trips = f"l{len(build.tensors)}", int(build.random.choice([0, 1, 2, 3, 9]))
    ends = build.random.random() < 0.2
    build.add("Neg", [x.name], x.dtype, x.shape)
    outer = build.tensors[-1].name
    goes_on = helper.make_node("Not" if ends else "Identity", ["go"], ["go_out"])
    lines = [("Neg", [outer], "same"), ("Cast", ["i"], "trip"), ("Mul", ["trip", "half"], "part")]
    lines += [("Add", ["s", "part"], "t"), ("Max", ["t", "same"], "s_out"), ("Abs", ["s"], "row")]
    nodes = [
        helper.make_node(operator, [_of(one, name, outer) for one in inputs], [_of(made, name, outer)])
        for operator, inputs, made in lines
    ]
    nodes[1].attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
    for flag in (goes_on.input, goes_on.output):
        flag[0] = _of(flag[0], name, outer)
    half = numpy_helper.from_array(np.array(0.5, np.float32), f"{name}_half")
    given = [("i", TensorProto.INT64, ()), ("go", TensorProto.BOOL, ()), ("s", TensorProto.FLOAT, x.shape)]
    made = [("go_out", TensorProto.BOOL, ()), *((one, TensorProto.FLOAT, x.shape) for one in ("s_out", "row"))]
    ports = [
        [helper.make_tensor_value_info(f"{name}_{one}", kind, shape) for one, kind, shape in group]
        for group in (given, made)
    ]
    body = helper.make_graph([goes_on, *nodes], "body", *ports, [half])
    rows = (1 if ends and trips else trips, *x.shape)
    inputs = [build.weight(np.array(trips, np.int64)), "", x.name]
    build.add("Loop", inputs, x.dtype, x.shape, rows, body=body)


def _of(name: str, body: str, outer: str) -> str:
    return name if name == outer else f"{body}_{name}"


def _computed_shape(build: Builder) -> None:
    x = build.pick(lambda t: 0 not in t.shape and len(t.shape) > 1)
    if x is None:
        return
    shape = f"{x.name}_shape{len(build.nodes)}"
    build.nodes.append(helper.make_node("Shape", [x.name], [shape]))
    if build.random.random() < 0.3:
        build.add("Expand", [x.name, build.one_of(shape, build.ints(1))], x.dtype, x.shape)
        return
    first, to = f"{shape}_first", f"{shape}_to"
    build.nodes.append(helper.make_node("Gather", [shape, build.ints(0)], [first]))
    build.nodes.append(helper.make_node("Concat", [first, build.ints(-1)], [to], axis=0))
    build.add("Reshape", [x.name, to], x.dtype, (x.shape[0], int(np.prod(x.shape[1:]))))


def _quantized(build: Builder) -> None:
    """Only inputs are quantized: a value that rounds another way in its last bit may fall to another side."""
    x = build.pick(lambda t: t.name.startswith("x") and t.dtype == "float32")
    if x is None:
        return
    scale, zero = build.weight(np.array(0.1, np.float32)), build.weight(np.array(3, np.int8))
    other = build.one_of(scale, scale, build.weight(np.array(0.2, np.float32)))
    moves = len(x.shape) > 1 and build.random.random() < 0.5
    names = [f"{x.name}_q{len(build.nodes)}_{i}" for i in range(4)]
    build.nodes.append(helper.make_node("QuantizeLinear", [x.name, scale, zero], [names[0]]))
    build.nodes.append(helper.make_node("DequantizeLinear", [names[0], scale, zero], [names[1]]))
    if moves:
        build.nodes.append(helper.make_node("Transpose", [names[1]], [names[2]]))
    build.nodes.append(helper.make_node("QuantizeLinear", [names[2 if moves else 1], other, zero], [names[3]]))
    build.add("DequantizeLinear", [names[3], other, zero], x.dtype, x.shape[::-1] if moves else x.shape)


PATTERNS = (
    "d = Div x root; e = Erf d; a = Add e one; m = Mul x a; y = Mul m half",
    "s = Softplus x; t = Tanh s; y = Mul x t",
    "a = Mul x half; y = Max x a",
    "a = Add x three; c = Clip a zero six; y = Div c six",
    "a = Add x three; c = Clip a zero six; d = Div c six; y = Mul x d",
    "m = ReduceMean x last; d = Sub x m; p = Mul d d; v = ReduceMean p last; b = Add v small; s = Sqrt b; n = Div d s;"
    " y = Mul n row",
    "s = Sqrt small; y = Add x s",
)
"""Patterns of several nodes that rules recognise, and chance does not make."""


def _pattern(build: Builder) -> None:
    x = build.pick(lambda t: t.dtype == "float32" and 0 not in t.shape and bool(t.shape))
    if x is None:
        return
    numbers = {"root": np.sqrt(2), "one": 1, "half": 0.5, "three": 3, "zero": 0, "six": 6, "small": 1e-3}
    lines = [line.strip().split() for line in build.one_of(*PATTERNS).split(";")]
    names = {"x": x.name}
    for made, _, operator, *inputs in lines:
        for name in inputs:
            if name in numbers:
                names[name] = build.weight(np.array(numbers[name], np.float32))
            elif name == "last":
                names[name] = build.ints(-1)
            elif name == "row":
                names[name] = build.weight(build.random.standard_normal(x.shape[-1]).astype(np.float32))
        read = [names[name] for name in inputs]
        if made == "y":
            build.add(operator, read, x.dtype, x.shape)
        else:
            names[made] = f"{made}_{len(build.nodes)}"
            build.nodes.append(helper.make_node(operator, read, [names[made]]))


STEPS = (
    _unary, _unary, _cast, _logic, _arithmetic, _arithmetic, _arithmetic, _together, _clip, _move, _move,
    _reshape, _reshape, _cut, _join, _dense, _dense, _conv, _conv, _pad, _branch, _loop,
    _computed_shape, _quantized, _pattern,
)  # fmt: skip
