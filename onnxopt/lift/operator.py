"""A node as the functions that compute it in torch see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir

from onnxopt.errors import EngineError

Tensor = Any
"""A ``torch.Tensor``; None for an input that is left out."""

Table = Mapping[str, Callable[..., Any]]
"""By operator: ``(operator, *inputs) -> output``, or a sequence of outputs."""


@dataclass(frozen=True)
class Operator:
    """A node, and the version of ONNX it is written in."""

    node: onnx_ir.Node
    version: int

    def get_int(self, name: str, default: int) -> int:
        """Return an attribute."""
        found = self.node.attributes.get_int(name, default)
        assert found is not None
        return found

    def get_float(self, name: str, default: float) -> float:
        """Return an attribute."""
        found = self.node.attributes.get_float(name, default)
        assert found is not None
        return found

    def get_string(self, name: str, default: str) -> str:
        """Return an attribute."""
        found = self.node.attributes.get_string(name, default)
        assert found is not None
        return found

    def get_ints(self, name: str, default: Sequence[int] | None = None) -> list[int] | None:
        """Return an attribute, the default where it is not there."""
        found = self.node.attributes.get(name)
        if found is not None:
            return list(found.as_ints())
        return None if default is None else list(default)

    def listed(self, name: str, given: Tensor) -> list[int] | None:
        """Return what is an input in newer versions of ONNX, and an attribute in older ones; None if neither is."""
        return self.get_ints(name) if given is None else [int(one) for one in given.tolist()]

    def refuse(self, *inputs: Tensor, unless: bool = False, why: str) -> None:
        """Raise EngineError if any of these inputs is given, or unless a condition holds."""
        if any(one is not None for one in inputs) or not (unless or inputs):
            raise cannot(self.node, why)


def cannot(node: onnx_ir.Node, why: str = "") -> EngineError:
    """Return the error of a node that gradients do not pass through."""
    told = f": {why}" if why else ""
    return EngineError(
        f"no gradient passes through {node.op_type}{told}",
        where=node.name,
        hint="choose what needs no gradients, such as criterion hessian",
    )
