"""Mixed precision: which layers are rounded, and the choice behind it."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxopt.context import Context, Event, Missed, Progress
from onnxopt.data.sample import InMemory
from onnxopt.errors import PassError, UnverifiableError
from onnxopt.evaluate.drift import compare_outputs
from onnxopt.ir.model import Model
from onnxopt.passes import make_pass
from onnxopt.profile.operators import node_seconds
from onnxopt.quantize.assignment import Border, fastest_within
from onnxopt.targets.target import local_target
from tests.graphs import answers, from_text, saved
from tests.quantize.products import product_weight, products, steady_seconds, wide_samples, with_outlier

F32 = np.float32


@pytest.fixture(autouse=True)
def _steady(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxopt.quantize.costs.node_seconds", steady_seconds)


@settings(deadline=None, max_examples=40)
@given(
    gains=st.lists(st.floats(-1, 1), min_size=1, max_size=6),
    data=st.data(),
    budget=st.floats(0.01, 3),
)
def test_the_choice_is_the_best_there_is(gains: list[float], data: Any, budget: float) -> None:
    """Held against trying everything."""
    count = len(gains)
    noises = data.draw(st.lists(st.floats(0.01, 1), min_size=count, max_size=count))
    ends = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda pair: pair[0] != pair[1])
    drawn = data.draw(st.lists(st.tuples(ends, st.floats(0, 0.5)), max_size=5)) if count > 1 else []
    borders = [Border(*pair, seconds) for pair, seconds in drawn]
    chosen = fastest_within(gains, noises, borders, budget)
    assert sum(noises[i] for i in chosen) <= budget * 1.0001
    best = max(
        _gain(gains, borders, one)
        for one in ([i for i in range(count) if on[i]] for on in product([False, True], repeat=count))
        if sum(noises[i] for i in one) <= budget
    )
    assert _gain(gains, borders, chosen) >= best - 1e-4


def test_a_layer_that_loses_the_answer_stays_in_float(tmp_path: Path) -> None:
    """The second layer's input has an outlier that leaves nothing of the rest in eight bits."""
    model, data = with_outlier(), wide_samples(24)
    uniform = make_pass("quantize-static", {})(model, _context(data, tmp_path))
    assert _sqnr(model, uniform, data) < 15
    told: list[Event] = []
    after = make_pass("quantize-mixed", {"min_sqnr": 25.0})(model, _context(data, tmp_path, told))
    assert _sqnr(model, after, data) >= 24
    assert after.operators["QuantizeLinear"] >= 1
    left = {event.node: event.reason for event in told if isinstance(event, Missed)}
    assert "MatMul@2" in left or any("falls to" in reason for reason in left.values())
    assert after.signature == model.signature


def test_all_is_rounded_where_the_outputs_bear_it(tmp_path: Path) -> None:
    model, data = products(), wide_samples(24)
    after = make_pass("quantize-mixed", {"min_sqnr": 10.0})(model, _context(data, tmp_path))
    assert _sqnr(model, after, data) >= 10
    assert after.operators["DequantizeLinear"] >= 2


def test_what_was_found_serves_other_budgets(tmp_path: Path) -> None:
    model, data = with_outlier(), wide_samples(24)
    told: dict[float, list[Event]] = {20.0: [], 30.0: []}
    for least, events in told.items():
        ctx = Context.of(data=data, scratch=tmp_path, emit=events.append, kept=tmp_path / "kept")
        after = make_pass("quantize-mixed", {"min_sqnr": least})(model, ctx)
        assert _sqnr(model, after, data) >= least - 1
    worked = [[event for event in events if isinstance(event, Progress)] for events in told.values()]
    assert worked[0]
    assert not worked[1]


def test_a_budget_nothing_keeps_is_told(tmp_path: Path) -> None:
    model, data = products(), wide_samples(24)
    with pytest.raises(PassError, match="no layer can be quantized") as caught:
        make_pass("quantize-mixed", {"min_sqnr": 150.0})(model, _context(data, tmp_path))
    assert "--min-sqnr" in str(caught.value.hint)


def test_outputs_that_never_vary_show_nothing(tmp_path: Path) -> None:
    one = wide_samples(1).read(0)
    model = from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 256] x) => (int64[n] y)'
        "{ a = MatMul (x, w) y = ArgMax <axis = 1, keepdims = 0> (a) }",
        {"w": product_weight(0)},
    )
    with pytest.raises(UnverifiableError, match="no float output varies"):
        make_pass("quantize-mixed", {})(model, _context(InMemory((one,)), tmp_path))


def test_a_group_that_destroys_the_answer_does_not_keep_others_from_being_rounded() -> None:
    assert fastest_within([1, 1], [1e20, 1e-4], [], 1e-2) == [1]


def test_what_the_runtime_fused_is_timed_as_the_nodes_before(tmp_path: Path) -> None:
    model = from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 256] x) => (float[n, 256] y)'
        "{ a = Gemm (x, w) b = Relu (a) c = MatMul (b, v) y = Add (c, bias) }",
        {"w": product_weight(0), "v": product_weight(1), "bias": np.ones(256, np.float32)},
    )
    path, feeds = saved(model, tmp_path / "model.onnx"), wide_samples(1).read(0).feeds
    taken = node_seconds(path, [feeds], local_target(), repeats=3)
    for operator in ("Gemm", "MatMul"):
        (name,) = [node.name for node in model.graph.graph if node.op_type == operator]
        assert taken[name or ""] > 0


def test_nodes_are_timed_by_their_names(tmp_path: Path) -> None:
    model = products()
    taken = node_seconds(
        saved(model, tmp_path / "model.onnx"), [wide_samples(1).read(0).feeds], local_target(), repeats=3
    )
    names = [node.name for node in model.graph.graph if node.op_type == "MatMul"]
    assert set(names) <= set(taken)
    assert all(taken[name or ""] > 0 for name in names)


def _gain(gains: list[float], borders: list[Border], chosen: list[int]) -> float:
    crossed = sum(one.seconds for one in borders if (one.one in chosen) != (one.other in chosen))
    return sum(gains[i] for i in chosen) - crossed


def _context(data: InMemory, folder: Path, told: list[Event] | None = None) -> Context:
    return Context.of(data=data, scratch=folder, emit=(lambda _: None) if told is None else told.append)


def _sqnr(before: Model, after: Model, data: InMemory) -> float:
    found = compare_outputs((answers(before, one.feeds), answers(after, one.feeds)) for one in data)
    assert found.sqnr_db is not None
    return found.sqnr_db
