"""Operators that compute each number for itself, or with those of other tensors at its place."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch.nn import functional

from onnxopt.lift.operator import Operator, Table, Tensor


def _each(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return an operator without attributes."""
    return lambda _, *inputs: function(*inputs)


def _over_all(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """Return an operator of any number of inputs."""
    return lambda _, *inputs: reduce(function, inputs)


def _mean(_: Operator, *inputs: Tensor) -> Tensor:
    return reduce(torch.add, inputs) / len(inputs)


def _clip(operator: Operator, x: Tensor, low: Tensor = None, high: Tensor = None) -> Tensor:
    least, most = operator.node.attributes.get_float("min"), operator.node.attributes.get_float("max")
    low = low if least is None else torch.tensor(least)
    high = high if most is None else torch.tensor(most)
    return x if low is None and high is None else torch.clamp(x, low, high)


def _cast(operator: Operator, x: Tensor) -> Tensor:
    return x.to(_FLOATS[operator.get_int("to", 1)])


_FLOATS = {1: torch.float32, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}


def _pow(_: Operator, x: Tensor, exponent: Tensor) -> Tensor:
    return torch.pow(x, exponent).to(x.dtype)


def _gelu(operator: Operator, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate=operator.get_string("approximate", "none"))


def _hard_sigmoid(operator: Operator, x: Tensor) -> Tensor:
    return torch.clamp(x * operator.get_float("alpha", 0.2) + operator.get_float("beta", 0.5), 0, 1)


def _hard_swish(_: Operator, x: Tensor) -> Tensor:
    return x * torch.clamp(x / 6 + 0.5, 0, 1)


def _elu(operator: Operator, x: Tensor) -> Tensor:
    return functional.elu(x, operator.get_float("alpha", 1.0))


def _celu(operator: Operator, x: Tensor) -> Tensor:
    return functional.celu(x, operator.get_float("alpha", 1.0))


def _selu(operator: Operator, x: Tensor) -> Tensor:
    alpha, gamma = (
        operator.get_float("alpha", 1.67326319217681884765625),
        operator.get_float("gamma", 1.05070102214813232421875),
    )
    return gamma * functional.elu(x, alpha)


def _leaky_relu(operator: Operator, x: Tensor) -> Tensor:
    return functional.leaky_relu(x, operator.get_float("alpha", 0.01))


def _thresholded_relu(operator: Operator, x: Tensor) -> Tensor:
    return torch.where(x > operator.get_float("alpha", 1.0), x, torch.zeros_like(x))


def _prelu(_: Operator, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, slope * x, x)


def _softmax(operator: Operator, x: Tensor) -> Tensor:
    return _over_axis(operator, x, torch.softmax)


def _log_softmax(operator: Operator, x: Tensor) -> Tensor:
    return _over_axis(operator, x, torch.log_softmax)


def _over_axis(operator: Operator, x: Tensor, function: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Compute along an axis; before ONNX 13 along it and all behind it."""
    if operator.version >= 13:
        return function(x, operator.get_int("axis", -1))
    axis = operator.get_int("axis", 1) % x.ndim
    return function(x.flatten(axis), -1).reshape(x.shape)


def _same(_: Operator, x: Tensor) -> Tensor:
    return x


def _dropout(operator: Operator, x: Tensor, _: Tensor = None, training: Tensor = None) -> Tensor:
    operator.refuse(unless=len(operator.node.outputs) == 1, why="its mask is asked for")
    operator.refuse(unless=training is None or not bool(training), why="it is in training mode")
    return x


ELEMENTWISE: Table = {
    "Abs": _each(torch.abs),
    "Acos": _each(torch.acos),
    "Acosh": _each(torch.acosh),
    "Add": _each(torch.add),
    "Asin": _each(torch.asin),
    "Asinh": _each(torch.asinh),
    "Atan": _each(torch.atan),
    "Atanh": _each(torch.atanh),
    "Cast": _cast,
    "Ceil": _each(torch.ceil),
    "Celu": _celu,
    "Clip": _clip,
    "Cos": _each(torch.cos),
    "Cosh": _each(torch.cosh),
    "Div": _each(torch.div),
    "Dropout": _dropout,
    "Elu": _elu,
    "Erf": _each(torch.erf),
    "Exp": _each(torch.exp),
    "Floor": _each(torch.floor),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Identity": _same,
    "LeakyRelu": _leaky_relu,
    "Log": _each(torch.log),
    "LogSoftmax": _log_softmax,
    "Max": _over_all(torch.maximum),
    "Mean": _mean,
    "Min": _over_all(torch.minimum),
    "Mish": _each(functional.mish),
    "Mul": _each(torch.mul),
    "Neg": _each(torch.neg),
    "PRelu": _prelu,
    "Pow": _pow,
    "Reciprocal": _each(torch.reciprocal),
    "Relu": _each(torch.relu),
    "Round": _each(torch.round),
    "Selu": _selu,
    "Sigmoid": _each(torch.sigmoid),
    "Sign": _each(torch.sign),
    "Sin": _each(torch.sin),
    "Sinh": _each(torch.sinh),
    "Softmax": _softmax,
    "Softplus": _each(functional.softplus),
    "Softsign": _each(functional.softsign),
    "Sqrt": _each(torch.sqrt),
    "Sub": _each(torch.sub),
    "Sum": _over_all(torch.add),
    "Tan": _each(torch.tan),
    "Tanh": _each(torch.tanh),
    "ThresholdedRelu": _thresholded_relu,
    "Where": _each(torch.where),
}
