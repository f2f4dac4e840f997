"""What every engine does, whatever its runtime, in this process and in a child."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxopt.compile.engine import Backend, Engine, Feeds, Results, make_backend
from onnxopt.compile.isolation import IsolatedEngine
from onnxopt.errors import EngineError
from onnxopt.ir.model import Model
from onnxopt.registry import names
from onnxopt.targets.target import local_target
from tests.graphs import cnn, from_text, mlp, samples, saved

MANY = """<ir_version: 8, opset_import: ["" : 17]>
many (float[n, 3] x, int64[n, 3] k, bool flag)
=> (float[n, 3] sum, int64[n] best, bool[n, 3] positive, float total, bool opposite, int64[2] size) {
    floats = Cast <to = 1> (k)
    sum = Add (x, floats)
    best = ArgMax <axis = 1, keepdims = 0> (sum)
    zero = Constant <value = float {0.0}> ()
    positive = Greater (sum, zero)
    total = ReduceSum <keepdims = 0> (sum)
    opposite = Not (flag)
    size = Shape (x)
}"""
ODD_NAMES = ("a/b:0", "é ∑", "file", "with space", "%5", "x.1", "call/y:0", "self")
RUNTIME_PACKAGES = ("onnx", "onnxruntime", "openvino")

Start = Callable[[Path], Engine]


@pytest.fixture(params=names("backends"))
def backend(request: pytest.FixtureRequest) -> Backend:
    made = make_backend(request.param)
    reason = made.unavailable()
    if reason:
        pytest.skip(reason)
    return made


@pytest.fixture(params=["in-process", "isolated"])
def start(request: pytest.FixtureRequest, backend: Backend) -> Iterator[Start]:
    """Compile a file with the backend; what is started is closed at the end."""

    def compiled(path: Path) -> Engine:
        if request.param == "isolated":
            return IsolatedEngine(backend, path, local_target())
        return backend.compile(path, local_target())

    with ExitStack() as stack:
        yield lambda path: stack.enter_context(compiled(path))


def _many_feeds(batch: int) -> Feeds:
    random = np.random.default_rng(batch)
    x = random.standard_normal((batch, 3)).astype(np.float32)
    return {"x": x, "k": random.integers(-2, 3, (batch, 3)), "flag": np.array(batch % 2 == 0)}


def _many_results(feeds: Feeds) -> Results:
    added = feeds["x"] + feeds["k"].astype(np.float32)
    return {
        "sum": added,
        "best": added.argmax(1),
        "positive": added > 0,
        "total": added.sum(dtype=np.float32),
        "opposite": ~feeds["flag"],
        "size": np.array(added.shape),
    }


def test_the_signature_is_the_models(start: Start, tmp_path: Path) -> None:
    model = from_text(MANY)
    found = start(saved(model, tmp_path / "many.onnx")).signature
    for have, want in zip(
        (*found.inputs, *found.outputs), (*model.signature.inputs, *model.signature.outputs), strict=True
    ):
        assert (have.name, have.dtype) == (want.name, want.dtype)
        assert have.shape is not None
        assert want.shape is not None
        assert [isinstance(d, int) and d for d in have.shape] == [isinstance(d, int) and d for d in want.shape]


def test_floats_ints_bools_and_scalars_of_any_batch_size(start: Start, tmp_path: Path) -> None:
    engine = start(saved(from_text(MANY), tmp_path / "many.onnx"))
    for batch in (2, 5, 1):
        feeds = _many_feeds(batch)
        results, wanted = engine.run(feeds), _many_results(feeds)
        assert list(results) == list(wanted)
        for name, want in wanted.items():
            assert (results[name].dtype, results[name].shape) == (want.dtype, want.shape), name
            np.testing.assert_allclose(results[name], want, rtol=1e-6, err_msg=name)


def test_results_stay_as_they_were_when_the_engine_runs_again(start: Start, tmp_path: Path) -> None:
    engine = start(saved(from_text(MANY), tmp_path / "many.onnx"))
    first = engine.run(_many_feeds(2))
    kept = {name: array.copy() for name, array in first.items()}
    second = engine.run({**_many_feeds(2), "x": np.full((2, 3), 9, np.float32)})
    assert not np.array_equal(second["sum"], kept["sum"])
    for name, array in kept.items():
        np.testing.assert_array_equal(first[name], array, err_msg=name)


def test_names_with_odd_characters(start: Start, tmp_path: Path) -> None:
    results = start(_odd(tmp_path / "odd.onnx")).run({"x y/0": np.array([1.0, -2.0], np.float32)})
    assert list(results) == list(ODD_NAMES)
    for index, array in enumerate(results.values()):
        np.testing.assert_array_equal(array, [2.0 + index, -4.0 + index])


def test_outputs_that_are_copies_of_others(start: Start, tmp_path: Path) -> None:
    model = from_text("""<ir_version: 8, opset_import: ["" : 17]>
        copies (float[n] x) => (float[n] b, float[n] a, float[n] c) {
            b = Identity (x)
            c = Relu (x)
            a = Identity (c)
        }""")
    results = start(saved(model, tmp_path / "copies.onnx")).run({"x": np.array([-1.0, 2.0], np.float32)})
    assert {name: array.tolist() for name, array in results.items()} == {"b": [-1, 2], "a": [0, 2], "c": [0, 2]}


def test_feeds_that_do_not_fit_are_refused_by_name(start: Start, tmp_path: Path) -> None:
    engine = start(saved(from_text(MANY), tmp_path / "many.onnx"))
    feeds = _many_feeds(2)
    right = engine.run(feeds)
    wrong = {
        r"\bk\b": {name: array for name, array in feeds.items() if name != "k"},
        "unheard": {**feeds, "unheard": feeds["x"]},
        r"(x\b|,3\]).*2": {**feeds, "x": feeds["x"][:, :2]},
        r"(x\b|,3\]).*(3|1)": {**feeds, "x": feeds["x"][0]},
    }
    for told, bad in wrong.items():
        with pytest.raises(EngineError, match=f"cannot run the model: .*{told}"):
            engine.run(bad)
    again = engine.run(feeds)
    assert all(np.array_equal(again[name], array) for name, array in right.items())


def test_time_gives_one_positive_number_a_run(start: Start, mlp_file: Path) -> None:
    seconds = start(mlp_file).time({"x": np.ones((2, 8), np.float32)}, 7)
    assert len(seconds) == 7
    assert all(isinstance(second, float) and second > 0 for second in seconds)


def test_an_engine_does_not_run_after_it_was_left(start: Start, mlp_file: Path) -> None:
    feeds = {"x": np.ones((2, 8), np.float32)}
    with start(mlp_file) as engine:
        assert engine.run(feeds)["y"].shape == (2, 4)
    with pytest.raises(EngineError):
        engine.run(feeds)


def test_an_operator_the_runtime_lacks_is_named(start: Start, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="Frobnicate") as caught:
        start(_unknown_operator(tmp_path / "unknown.onnx"))
    assert caught.value.where == str(tmp_path / "unknown.onnx")
    assert "try another --runtime" in (caught.value.hint or "")


def test_a_file_cut_short_is_refused_with_its_path(start: Start, mlp_file: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(mlp_file.read_bytes()[: mlp_file.stat().st_size // 2])
    with pytest.raises(EngineError, match=r"cannot (load|compile) the model: .*(parsing|Unable to read)") as caught:
        start(cut)
    assert caught.value.where == str(cut)


@pytest.mark.parametrize("build", [mlp, cnn], ids=["mlp", "cnn"])
def test_all_runtimes_agree_with_the_reference(backend: Backend, build: Callable[[], Model], tmp_path: Path) -> None:
    model = build()
    path = saved(model, tmp_path / "model.onnx")
    with make_backend("reference").compile(path, local_target()) as judge, backend.compile(path, local_target()) as one:
        for sample in samples(model, 3, batch=3):
            want, have = judge.run(sample.feeds), one.run(sample.feeds)
            assert list(have) == list(want)
            for name, array in want.items():
                assert np.ptp(array) > 0.1
                np.testing.assert_allclose(have[name], array, rtol=1e-4, atol=1e-5)


def test_close_frees_what_the_runtime_holds(backend: Backend, mlp_file: Path) -> None:
    engine = backend.compile(mlp_file, local_target())
    held = [weakref.ref(part) for part in _parts(engine)]
    assert held
    engine.close()
    gc.collect()
    assert {part() for part in held} == {None}


def test_closing_an_isolated_engine_ends_its_process(backend: Backend, mlp_file: Path) -> None:
    engine = IsolatedEngine(backend, mlp_file, local_target())
    process = engine._child._process
    assert process.poll() is None
    assert engine.load_seconds > 0
    assert engine.peak_memory() > 10_000_000
    engine.close()
    assert process.poll() is not None


def _parts(engine: Engine) -> list[object]:
    """Return the runtime's own objects an engine holds."""
    holder = getattr(engine, "_inner", engine)
    return [part for part in vars(holder).values() if type(part).__module__.split(".")[0] in RUNTIME_PACKAGES]


def _odd(path: Path) -> Path:
    helper = onnx.helper
    nodes = [helper.make_node("Mul", ["x y/0", "two"], ["twice"])]
    nodes += [helper.make_node("Add", ["twice", f"k{index}"], [name]) for index, name in enumerate(ODD_NAMES)]
    constants = [helper.make_tensor(f"k{index}", 1, [], [float(index)]) for index in range(len(ODD_NAMES))]
    graph = helper.make_graph(
        nodes,
        "odd",
        [helper.make_tensor_value_info("x y/0", 1, ["n"])],
        [helper.make_tensor_value_info(name, 1, ["n"]) for name in ODD_NAMES],
        [helper.make_tensor("two", 1, [], [2.0]), *constants],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def _unknown_operator(path: Path) -> Path:
    model = from_text("""<ir_version: 8, opset_import: ["" : 17, "com.acme" : 1]>
        unknown (float[n] x) => (float[n] y) { y = com.acme.Frobnicate (x) }""")
    return saved(model, path)
