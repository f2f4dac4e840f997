"""A rewrite rule: what it looks for, and what it puts there or why it does not fire.

A rule is stateless and changes nothing itself: ``match`` looks at one node, the last of what the rule would replace.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import onnx_ir


@dataclass(frozen=True)
class Miss:
    """Why a rule came close and did not fire, and the node that is to blame."""

    reason: str
    node: onnx_ir.Node


@dataclass(frozen=True)
class Replacement:
    """What takes the place of a node's outputs.

    Attributes:
        values: For each output of the matched node, the value that carries the same: one that was there already, or
            one that ``nodes`` make. None for an output nothing reads.
        nodes: New nodes, in order.
        weights: New initializers these read.
        others: Outputs of other nodes that go as well, each with the value that carries the same.
    """

    values: tuple[onnx_ir.Value | None, ...]
    nodes: tuple[onnx_ir.Node, ...] = ()
    weights: tuple[onnx_ir.Value, ...] = ()
    others: tuple[tuple[onnx_ir.Value, onnx_ir.Value], ...] = ()


Outcome = Replacement | Miss | None
"""None: there is nothing of what the rule looks for."""


class Rule(ABC):
    """One rewrite.

    Attributes:
        name: What ``--only``, ``--skip`` and reports call it.
        operators: Types of the node ``match`` is asked about, all of ONNX's own domain.
        since: The first opset that has what the rule puts there.
        reveals_shapes: Whether shapes may be inferred afterwards that were not known before.
    """

    name: ClassVar[str]
    operators: ClassVar[frozenset[str]]
    since: ClassVar[int] = 1
    reveals_shapes: ClassVar[bool] = False

    @abstractmethod
    def match(self, node: onnx_ir.Node) -> Outcome:
        """Return what takes the place of ``node``, why nothing does, or None."""

    @final
    def __str__(self) -> str:
        return self.name


def replaced_by(
    operator: str,
    inputs: Sequence[onnx_ir.Value | None],
    attributes: Mapping[str, Any] | None = None,
    weights: tuple[onnx_ir.Value, ...] = (),
) -> Replacement:
    """Return the replacement of a node of one read output by one new node, whose attributes are Python values."""
    tape = onnx_ir.tape.Tape()
    made = tape.op(operator, inputs, attributes)
    return Replacement((made,), tuple(tape.nodes), weights)


def remade(
    node: onnx_ir.Node,
    inputs: Sequence[onnx_ir.Value | None],
    attributes: Mapping[str, onnx_ir.Attr] | None = None,
    weights: tuple[onnx_ir.Value, ...] = (),
) -> Replacement:
    """Return the replacement by a node of the same type and name, its attributes as before unless given."""
    kept = node.attributes if attributes is None else attributes
    made = onnx_ir.Node("", node.op_type, inputs, list(kept.values()), num_outputs=len(node.outputs), name=node.name)
    return Replacement(tuple(made.outputs), (made,), weights)


def same(value: onnx_ir.Value | None, node: onnx_ir.Node) -> Replacement:
    """Return the replacement of a node of one read output by a value that was there already."""
    return Replacement((value, *(None for _ in node.outputs[1:])))
