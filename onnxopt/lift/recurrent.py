"""LSTM, GRU and RNN, step by step, with the functions ONNX has by default."""

from __future__ import annotations

from collections.abc import Callable

import torch

from onnxopt.lift.operator import Operator, Table, Tensor

Step = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(what the input adds to the gates, hidden, cell) -> (hidden, cell)``."""


def _lstm(
    operator: Operator,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor = None,
    lengths: Tensor = None,
    hidden: Tensor = None,
    cell: Tensor = None,
    peepholes: Tensor = None,
) -> list[Tensor]:
    operator.refuse(peepholes, why="it looks at its cell")
    _check(operator, x, lengths)
    biases = _biases(w, r, b)

    def step_of(direction: int) -> Step:
        def step(given: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
            gates = given + biases[direction].sum(0) + h @ r[direction].T
            i, o, f, new = gates.chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * new.tanh()
            return o.sigmoid() * c.tanh(), c

        return step

    return _run(operator, x, w, r, step_of, hidden, cell)


def _gru(
    operator: Operator,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor = None,
    lengths: Tensor = None,
    hidden: Tensor = None,
) -> list[Tensor]:
    _check(operator, x, lengths)
    biases, size = _biases(w, r, b), r.shape[-1]
    late = bool(operator.get_int("linear_before_reset", 0))

    def step_of(direction: int) -> Step:
        (of_input, of_hidden), weight = biases[direction], r[direction]

        def step(given: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
            mine = given + of_input
            both = mine[:, : 2 * size] + h @ weight[: 2 * size].T + of_hidden[: 2 * size]
            update, reset = both.sigmoid().chunk(2, -1)
            if late:
                back = reset * (h @ weight[2 * size :].T + of_hidden[2 * size :])
            else:
                back = (reset * h) @ weight[2 * size :].T + of_hidden[2 * size :]
            new = (mine[:, 2 * size :] + back).tanh()
            return (1 - update) * new + update * h, c

        return step

    return _run(operator, x, w, r, step_of, hidden, None)[:2]


def _rnn(
    operator: Operator,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor = None,
    lengths: Tensor = None,
    hidden: Tensor = None,
) -> list[Tensor]:
    _check(operator, x, lengths)
    biases = _biases(w, r, b)

    def step_of(direction: int) -> Step:
        def step(given: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
            return (given + biases[direction].sum(0) + h @ r[direction].T).tanh(), c

        return step

    return _run(operator, x, w, r, step_of, hidden, None)[:2]


def _check(operator: Operator, x: Tensor, lengths: Tensor) -> None:
    """Raise EngineError where it is not what ONNX has by default."""
    custom = any(name in operator.node.attributes for name in ("activations", "clip"))
    operator.refuse(unless=not (custom and _odd(operator)), why="its functions are not those it has by default")
    operator.refuse(unless=not operator.get_int("layout", 0), why="its batch comes first")
    same = lengths is None or bool((lengths == x.shape[0]).all())
    operator.refuse(unless=same, why="its sequences differ in length")


_USUAL = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}


def _odd(operator: Operator) -> bool:
    found = operator.node.attributes.get("activations")
    names = [one.lower() for one in found.as_strings()] if found is not None else []
    usual = _USUAL[operator.node.op_type]
    return "clip" in operator.node.attributes or names not in ([], usual, usual * 2)


def _biases(w: Tensor, r: Tensor, b: Tensor) -> Tensor:
    """Return the biases, [directions, 2, gates]: of what is read and of what is carried."""
    shape = (w.shape[0], 2, w.shape[1])
    return torch.zeros(shape, dtype=r.dtype) if b is None else b.reshape(shape)


def _run(
    operator: Operator, x: Tensor, w: Tensor, r: Tensor, step_of: Callable[[int], Step], hidden: Tensor, cell: Tensor
) -> list[Tensor]:
    """Return all states [time, directions, batch, hidden], the last, and the last cells."""
    length, batch, size = x.shape[0], x.shape[1], r.shape[-1]
    nothing = torch.zeros(batch, size, dtype=x.dtype)
    found = []
    for direction in range(w.shape[0]):
        back = direction == 1 or operator.get_string("direction", "forward") == "reverse"
        h = nothing if hidden is None else hidden[direction]
        c = nothing if cell is None else cell[direction]
        given, step, states = x @ w[direction].T, step_of(direction), []
        for moment in reversed(range(length)) if back else range(length):
            h, c = step(given[moment], h, c)
            states.append(h)
        found.append((torch.stack(states[::-1] if back else states), h, c))
    return [torch.stack(one, place) for one, place in zip(zip(*found, strict=True), (1, 0, 0), strict=True)]


RECURRENT: Table = {"GRU": _gru, "LSTM": _lstm, "RNN": _rnn}
