"""Applying rules until none fires, in about linear time, with a log of what fired and what nearly did."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir

from onnxopt.context import Event, Fired, Missed
from onnxopt.errors import PassError
from onnxopt.ir.traverse import all_graphs
from onnxopt.rewrite.rule import Miss, Replacement, Rule

Application = tuple[str, str]
"""A rule's name and the name of the node it is applied at."""

_MOST_VISITS = 50
"""Visits a node, over all nodes; more means that rules undo each other."""


@dataclass
class Log:
    """What rules did to a model, in order."""

    fired: list[Fired] = field(default_factory=list)
    missed: dict[Application, Missed] = field(default_factory=dict)

    def add(self, other: Log) -> None:
        """Take in what happened afterwards."""
        self.fired += other.fired
        for application in [(fired.rule, fired.node) for fired in other.fired]:
            self.missed.pop(application, None)
        self.missed.update(other.missed)

    def tell(self, listen: Callable[[Event], None]) -> None:
        """Tell a listener everything, in order."""
        for fired in self.fired:
            listen(fired)
        for missed in self.missed.values():
            listen(missed)


def apply_rules(
    model: onnx_ir.Model,
    rules: Sequence[Rule],
    *,
    most: int | None = None,
    left_out: frozenset[Application] = frozenset(),
) -> Log:
    """Apply rules in every graph of a model until none fires, in place.

    Args:
        model: Its shapes should be inferred: rules only use what is known.
        rules: Tried in this order at every node.
        most: Stop after so many applications; the first ones are the same whatever the bound.
        left_out: What must not be applied.

    Raises:
        PassError: Rules undo each other and would never end.
        RuleError: A rule failed.
    """
    log = Log()
    by_operator: dict[str, list[Rule]] = defaultdict(list)
    for rule in [rule for rule in rules if rule.since <= model.opset_imports.get("", 0)]:
        for operator in rule.operators:
            by_operator[operator].append(rule)
    for graph in all_graphs(model):
        _GraphRewriter(graph, by_operator, log, most, left_out).run()
    return log


class RuleError(PassError):
    """A rule failed: a defect of its own, not of the model.

    Attributes:
        rule: Its name.
    """

    def __init__(self, rule: Rule, node: onnx_ir.Node, error: Exception) -> None:
        super().__init__(f"rule {rule.name!r} failed at node {node.name!r}: {type(error).__name__}: {error}")
        self.rule = rule.name


class _GraphRewriter:
    def __init__(
        self,
        graph: onnx_ir.Graph,
        rules: Mapping[str, Sequence[Rule]],
        log: Log,
        most: int | None,
        left_out: frozenset[Application],
    ) -> None:
        self._graph = graph
        self._rules = rules
        self._log = log
        self._most = most
        self._left_out = left_out
        self._todo = deque(graph)
        self._visits = _MOST_VISITS * max(len(graph), 20)

    def run(self) -> None:
        while self._todo and (self._most is None or len(self._log.fired) < self._most):
            node = self._todo.popleft()
            if node.graph is self._graph and node.domain in ("", "ai.onnx"):
                self._visit(node)

    def _visit(self, node: onnx_ir.Node) -> None:
        self._visits -= 1
        if self._visits < 0:
            last = ", ".join(dict.fromkeys(fired.rule for fired in self._log.fired[-10:]))
            raise PassError(f"rules undo each other: {last}", hint="leave one of them out with --skip")
        for rule in self._rules.get(node.op_type, ()):
            if (rule.name, node.name or "") not in self._left_out and self._tried(rule, node):
                return

    def _tried(self, rule: Rule, node: onnx_ir.Node) -> bool:
        """Apply a rule to a node if it matches; return whether it did."""
        try:
            outcome = rule.match(node)
        except Exception as error:
            raise RuleError(rule, node, error) from error
        if isinstance(outcome, Replacement) and (obstacle := _obstacle(outcome, node, self._graph)):
            _discard(outcome.nodes)
            outcome = obstacle
        key = (rule.name, node.name or "")
        if isinstance(outcome, Miss):
            self._log.missed[key] = Missed(*key, outcome.reason, outcome.node.name or "")
        if not isinstance(outcome, Replacement):
            return False
        self._log.missed.pop(key, None)
        self._log.fired.append(self._replace(rule, node, outcome))
        return True

    def _replace(self, rule: Rule, node: onnx_ir.Node, new: Replacement) -> Fired:
        for value in new.weights:
            value.name = _free_name(value.name or rule.name, self._graph)
            self._graph.register_initializer(value)
        for made in new.nodes:
            made.name = made.name or f"{node.name}.{rule.name}"
        self._graph.insert_before(node, new.nodes)
        pairs = [*zip(node.outputs, new.values, strict=True), *new.others]
        readers = [user for value, _ in pairs for user, _ in value.uses()]
        for old, instead in pairs:
            if instead is not None:
                _take_over(old, instead)
        gone = [node, *(maker for old, _ in new.others if (maker := old.producer()) is not None)]
        removed, freed = _remove_dead(self._graph, gone)
        self._todo.extendleft(reversed([*new.nodes, *(reader for reader in readers if reader.graph is self._graph)]))
        added = sum(value.const_value.nbytes for value in new.weights if value.const_value is not None)
        return Fired(rule.name, node.name or "", removed - len(new.nodes), freed - added)


def _obstacle(new: Replacement, node: onnx_ir.Node, graph: onnx_ir.Graph) -> Miss | None:
    """Return why a replacement cannot be made: an output of the graph must keep its name."""
    for old, value in zip(node.outputs, new.values, strict=True):
        if value is None and (old.uses() or old.is_graph_output()):
            return Miss("another output of the node is read", node)
        there = value is not None and value.producer() not in new.nodes
        if there and old.is_graph_output() and not _may_rename(value, graph):
            return Miss("it makes an output of the graph, whose name its input cannot take", node)
    return None


def _discard(nodes: Sequence[onnx_ir.Node]) -> None:
    """Let go of nodes that were made and are not used: what they read must not count them as readers."""
    for node in nodes:
        node.resize_inputs(0)


def _may_rename(value: onnx_ir.Value | None, graph: onnx_ir.Graph) -> bool:
    maker = value.producer() if value is not None else None
    return value is not None and maker is not None and maker.graph is graph and not value.is_graph_output()


def _take_over(old: onnx_ir.Value, value: onnx_ir.Value) -> None:
    """Let readers of one value read another, which takes its name where it is an output of the graph."""
    if old.is_graph_output():
        value.name, old.name = old.name, None
        value.type, value.shape = old.type or value.type, old.shape or value.shape
    value.type = value.type or old.type
    value.shape = value.shape or old.shape
    old.replace_all_uses_with(value, replace_graph_outputs=True)


def _remove_dead(graph: onnx_ir.Graph, gone: Sequence[onnx_ir.Node]) -> tuple[int, int]:
    """Remove nodes nothing reads, and what only they read; return how many nodes and bytes went."""
    nodes, freed, todo = 0, 0, list(gone)
    while todo:
        dead = todo.pop()
        if dead.graph is not graph or any(value.uses() or value.is_graph_output() for value in dead.outputs):
            continue
        inputs = [value for value in dict.fromkeys(dead.inputs) if value is not None]
        graph.remove(dead, safe=True)
        nodes += 1
        todo += [maker for value in inputs if (maker := value.producer()) is not None]
        freed += sum(_dropped(value) for value in inputs)
    return nodes, freed


def _dropped(value: onnx_ir.Value) -> int:
    """Drop an initializer nothing reads; return its bytes."""
    if value.uses() or not value.is_initializer() or value.is_graph_input() or value.is_graph_output():
        return 0
    owner = value.graph
    if owner is None or value.name is None:
        return 0
    del owner.initializers[value.name]
    return value.const_value.nbytes if value.const_value is not None else 0


def _free_name(name: str, graph: onnx_ir.Graph) -> str:
    taken: Iterable[str] = graph.initializers
    if name not in taken:
        return name
    return next(f"{name}_{i}" for i in range(1, 1 << 30) if f"{name}_{i}" not in taken)
