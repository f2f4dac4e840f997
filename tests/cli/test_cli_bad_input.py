"""Everything a user can get wrong: what, where, what to do, the right code, no traceback, nothing half-written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxopt.data.files import write_samples
from onnxopt.ir.write import write_model
from tests.graphs import mlp, samples, saved


@pytest.fixture
def folder(tmp_path):
    saved(mlp(), tmp_path / "mlp.onnx")
    write_samples(samples(mlp(), 6, labels=True), tmp_path / "data")
    return tmp_path


def onnxopt(folder: Path, *words: str, **changes) -> subprocess.CompletedProcess:
    environment = {**os.environ, "ONNXOPT_CACHE": str(folder / "cache"), **changes}
    command = [sys.executable, "-m", "onnxopt", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=120)


def check(done: subprocess.CompletedProcess, code: int, *told: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for text in told:
        assert text in done.stderr
    assert done.stdout == ""


def empty(folder):
    (folder / "bad.onnx").write_bytes(b"")


def random_bytes(folder):
    (folder / "bad.onnx").write_bytes(np.random.default_rng(0).bytes(5000))


def truncated(folder):
    whole = (folder / "mlp.onnx").read_bytes()
    (folder / "bad.onnx").write_bytes(whole[: len(whole) // 2])


def without_external_data(folder):
    write_model(mlp(width=64), folder / "bad.onnx", external_above=0)
    (folder / "bad.onnx.data").unlink()


def external_data_elsewhere(folder):
    write_model(mlp(width=64), folder / "bad.onnx", external_above=0)
    proto = onnx.load(folder / "bad.onnx", load_external_data=False)
    entries = [entry for tensor in proto.graph.initializer for entry in tensor.external_data]
    for entry in entries:
        entry.value = "../secret" if entry.key == "location" else entry.value
    (folder / "bad.onnx").write_bytes(proto.SerializeToString())


def changed_proto(change):
    def make(folder):
        proto = onnx.load(folder / "mlp.onnx")
        change(proto)
        (folder / "bad.onnx").write_bytes(proto.SerializeToString())

    return make


def unknown_operator(proto):
    proto.graph.node[1].op_type = "Relux"


def unknown_domain(proto):
    proto.graph.node[1].domain = "com.example"
    proto.opset_import.add(domain="com.example", version=1)


def future_opset(proto):
    proto.opset_import[0].version = 999


def future_format(proto):
    proto.ir_version = 999


def no_outputs(proto):
    del proto.graph.output[:]


def dangling(proto):
    proto.graph.node[1].input[0] = "nowhere"


MODELS = [
    (empty, 1, "is empty", "cut short"),
    (random_bytes, 1, "is no ONNX model", "cut short"),
    (truncated, 1, "is no ONNX model", "cut short"),
    (without_external_data, 1, "is missing", "put it into"),
    (external_data_elsewhere, 1, "lies outside the model's folder", "do not use this file"),
    (changed_proto(unknown_operator), 1, "no operator 'Relux'", "did you mean 'Relu'?"),
    (changed_proto(unknown_domain), 1, "com.example", "operator"),
    (changed_proto(future_opset), 1, "wants opset 999", "install a newer onnx"),
    (changed_proto(future_format), 1, "IR version 999", "install a newer onnx"),
    (changed_proto(no_outputs), 1, "no outputs", "export it again"),
    (changed_proto(dangling), 1, "reads 'nowhere', which nothing makes", "export it again"),
]


@pytest.mark.parametrize(("make", "code", "what", "hint"), MODELS)
def test_bad_models(folder, make, code, what, hint):
    make(folder)
    done = onnxopt(folder, "optimize", "bad.onnx", "--data", "data", "--out", "out", "--effort", "quick")
    check(done, code, "error:", what, "hint:", hint)
    assert not (folder / "out").exists()


def test_a_bucket_of_a_dimension_that_is_not_there(folder):
    done = onnxopt(folder, "bucket-shapes", "mlp.onnx", "--out", "x", "--dims", "bach=2")
    check(done, 1, "no input has a dimension 'bach'", "did you mean 'batch'?")
    assert not list(folder.glob("x/*"))


@pytest.mark.parametrize("command", ["inspect", "profile", "rewrite"])
def test_bad_models_elsewhere(folder, command):
    truncated(folder)
    out = ["--out", "x.onnx"] if command == "rewrite" else []
    check(onnxopt(folder, command, "bad.onnx", *out), 1, "is no ONNX model")
    assert not (folder / "x.onnx").exists()


@pytest.mark.parametrize(
    ("words", "what", "hint"),
    [
        (["optimize", "nope.onnx"], "there is no file nope.onnx", "check the path"),
        (["optimize", "data"], "data is a folder, not a model file", "give the .onnx file"),
        (["optimize", "mlp.onnx", "--data", "nope"], "there is no data at nope", "folder, a file, or module:function"),
        (["optimize", "mlp.onnx", "--max-drop", "lots"], "'lots' is not a share", "units"),
        (["optimize", "mlp.onnx", "--max-latency", "5"], "'5' is not a time", "units"),
        (["optimize", "mlp.onnx", "--metric", "topp1"], "there is no metric 'topp1'", "did you mean 'top1'?"),
        (["optimize", "mlp.onnx", "--metric", "nope:score"], "there is no module 'nope'", "installed"),
        (["optimize", "mlp.onnx", "--runtime", "ortt"], "--runtime cannot be 'ortt'", "did you mean 'ort'?"),
        (["optimize", "mlp.onnx", "--effort", "much"], "there is no effort 'much'", "known"),
        (["run", "nope.yaml"], "cannot read the recipe", None),
        (["rewrit", "mlp.onnx"], "there is no command 'rewrit'", "did you mean 'rewrite'?"),
        (
            ["quantize-static", "mlp.onnx", "--out", "x", "--scope", "some"],
            'scope is "some"',
            "compute: nodes with weights",
        ),
        (["fold-constants", "mlp.onnx", "--out", "x", "--growth", "-1"], "growth is -1", "bytes one folded tensor"),
        (["fix-shapes", "mlp.onnx", "--out", "x", "--dims", "batch"], "is not NAME=VALUE", None),
        (["bucket-shapes", "mlp.onnx", "--out", "x", "--dims", "batch=2,x"], "'x' is no size", "NAME=8,16,32"),
        (["bucket-shapes", "mlp.onnx", "--out", "x"], "Missing option '--dims'", None),
        (["export", "nope:build", "--out", "x.onnx"], "there is no module 'nope'", "installed"),
        (["export", "tests.graphs:mlp", "--out", "x", "--dynamic", "batch"], "", None),
        (["evaluate", "mlp.onnx"], "nothing to evaluate by", "give --data"),
        (["passes", "nope"], "there is no pass 'nope'", "known"),
        (["data", "nope.yaml", "--model", "mlp.onnx", "--out", "x"], "there is no data at nope.yaml", "folder"),
        (["zoo", "get", "magica", "--out", "x"], "the zoo has no model 'magica'", "did you mean 'magika'?"),
        (["optimize", "mlp.onnx", "--threads", "0"], "'--threads'", None),
        (["optimize"], "Missing argument", None),
        (["optimize", "mlp.onnx", "--no-such-option"], "No such option", None),
    ],
)
def test_wrong_usage(folder, words, what, hint):
    pytest.importorskip("torch") if words[0] == "export" else None
    check(onnxopt(folder, *words), 2, what, *([hint] if hint else []))
    assert not (folder / "x").exists()


def rename_input(arrays):
    arrays["y"] = arrays.pop("x")


def wrong_dtype(arrays):
    arrays["x"] = arrays["x"].astype(np.float64)


def wrong_shape(arrays):
    arrays["x"] = arrays["x"][:, :3]


def with_nan(arrays):
    arrays["x"][0, 0] = np.nan


def longer_label(arrays):
    arrays["label"] = np.zeros(99, np.int64)


def no_label(arrays):
    del arrays["label"]


@pytest.mark.parametrize(
    ("change", "what", "hint"),
    [
        (rename_input, "the model has no input 'y'", "known: x"),
        (wrong_dtype, "input 'x' is float32, the sample holds float64", "astype"),
        (wrong_shape, "input 'x' has shape [batch,8], the sample [2,3]", "every dimension"),
        (with_nan, "input 'x' has 1 NaN values", "repair or remove"),
        (longer_label, "the label has 99 entries", "one label a decision"),
        (no_label, "samples have no label", "label all or none"),
    ],
)
def test_bad_samples(folder, change, what, hint):
    for path in sorted((folder / "data").glob("*.npz"))[: None if change is longer_label else 1]:
        with np.load(path) as archive:
            arrays = {name: archive[name].copy() for name in archive.files}
        change(arrays)
        np.savez(path, **arrays)
    words = ["optimize", "mlp.onnx", "--data", "data", "--metric", "top1", "--out", "out", "--effort", "quick"]
    check(onnxopt(folder, *words), 1, what, ".npz", hint)
    assert not (folder / "out").exists()


def test_pickled_samples_are_never_opened(folder):
    np.savez(folder / "data" / "00000.npz", x=np.array([{"a": 1}], dtype=object))
    check(onnxopt(folder, "optimize", "mlp.onnx", "--data", "data"), 1, "it holds Python objects", "numpy.savez")


def test_user_code_that_raises_is_told_with_its_line(folder):
    (folder / "mine.py").write_text("def feeds():\n    raise RuntimeError('sorry')\n    yield\n")
    check(onnxopt(folder, "optimize", "mlp.onnx", "--data", "mine:feeds"), 1, "raised RuntimeError: sorry", "mine.py:2")


def test_a_metric_that_raises_is_told_with_its_line(folder):
    (folder / "mine.py").write_text("def score(outputs, labels):\n    return 1 / 0\n")
    words = ["optimize", "mlp.onnx", "--data", "data", "--metric", "mine:score"]
    check(onnxopt(folder, *words), 1, "raised ZeroDivisionError", "mine.py:2")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(folder):
    (folder / "locked").mkdir(mode=0o500)
    done = onnxopt(folder, "remove-unused", "mlp.onnx", "--out", "locked/x.onnx", "--no-verify")
    check(done, 1, "cannot be written", "another --out")


def test_a_folder_nobody_can_write(folder):
    done = onnxopt(folder, "remove-unused", "mlp.onnx", "--out", "/proc/nowhere/x.onnx", "--no-verify")
    check(done, 1, "/proc/nowhere", "choose another --out folder")


def test_an_output_folder_that_is_a_file(folder):
    (folder / "taken").write_text("in the way")
    done = onnxopt(folder, "remove-unused", "mlp.onnx", "--out", "taken/x.onnx")
    check(done, 1, "taken", "--out")
    assert (folder / "taken").read_text() == "in the way"


def test_a_full_disk(folder):
    """The limit on file size stands for a full disk: the model fits in no file of 100 bytes."""
    program = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); import signal;"
    program += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from onnxopt.cli.main import main; main(sys.argv[1:])"
    words = ["remove-unused", "mlp.onnx", "--out", "x.onnx", "--cache", "c", "--no-verify"]
    done = subprocess.run(
        [sys.executable, "-B", "-c", program, *words], cwd=folder, capture_output=True, text=True, timeout=60
    )
    check(done, 1, "error:")
    assert not (folder / "x.onnx").exists()
    assert [file for file in folder.rglob("*") if file.name.startswith(".onnxopt-")] == []


def test_debug_shows_the_traceback(folder):
    done = onnxopt(folder, "optimize", "nope.onnx", "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_errors_are_json_where_asked(folder):
    done = onnxopt(folder, "optimize", "nope.onnx", "--json")
    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert (told["error"], told["exit_code"]) == ("UsageError", 2)
    assert "nope.onnx" in told["what"]


def _content(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*.onnx"))}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["optimize", "mlp.onnx", "--out", "."], "is the folder of the input, which would be overwritten"),
        (["run", "same.yaml", "--out", "."], "is the folder of the input, which would be overwritten"),
        (["rewrite", "mlp.onnx", "--out", "mlp.onnx"], "mlp.onnx belongs to the input and would be overwritten"),
        (["rewrite", "mlp.onnx", "--out", "new/"], "new is no name for an ONNX model"),
    ],
)
def test_the_input_is_never_overwritten(folder, words, told):
    (folder / "same.yaml").write_text("model: mlp.onnx\npasses: [rewrite]\n")
    before = _content(folder)
    check(onnxopt(folder, *words), 2, told, "hint:")
    assert _content(folder) == before
    assert not (folder / "new").exists()


def test_samples_are_not_mixed_with_those_of_before(folder):
    before = sorted((folder / "data").iterdir())
    done = onnxopt(folder, "data", "data", "--model", "mlp.onnx", "--limit", "2", "--out", "data")
    check(done, 1, "data holds samples already", "choose another")
    assert sorted((folder / "data").iterdir()) == before


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (["inspect", "nope.onnx", "--json"], 2, "UsageError"),
        (["inspect", "--json"], 2, "UsageError"),
        (["profile", "mlp.onnx", "--threads", "0", "--json"], 2, "UsageError"),
        (["profile", "mlp.onnx", "--option", "a=[", "--json"], 2, "UsageError"),
        (["profile", "mlp.onnx", "--vs", "nope.onnx", "--json"], 2, "UsageError"),
        (["fix-shapes", "mlp.onnx", "--out", "x.onnx", "--dims", "n=[", "--json"], 2, "UsageError"),
        (["evaluate", "mlp.onnx", "--data", "data", "--reference", "nope.onnx", "--json"], 2, "UsageError"),
        (
            ["evaluate", "mlp.onnx", "--data", "data", "--reference", "mlp.onnx", "--goal", "min", "--json"],
            2,
            "UsageError",
        ),
    ],
)
def test_every_error_is_one_json_document_where_asked(folder, words, code, kind):
    done = onnxopt(folder, *words)
    assert done.returncode == code
    told = json.loads(done.stdout)
    assert (told["error"], told["exit_code"]) == (kind, code)
    assert "defect" not in done.stderr


def test_a_missed_bound_is_one_json_document(folder):
    done = onnxopt(
        folder,
        "optimize",
        "mlp.onnx",
        "--data",
        "data",
        "--max-size",
        "1B",
        "--effort",
        "quick",
        "--json",
        "--runtime",
        "ort",
    )
    assert done.returncode == 3
    assert "1 asked for" in json.loads(done.stdout)["shortfall"]


def test_a_score_that_is_no_number_is_null_in_json(folder):
    one = onnxopt(folder, "data", "data", "--model", "mlp.onnx", "--limit", "1", "--out", "one")
    assert one.returncode == 0
    done = onnxopt(folder, "evaluate", "mlp.onnx", "--data", "one", "--metric", "pearson", "--json")
    assert json.loads(done.stdout, parse_constant=pytest.fail)


def test_the_cache_keeps_what_is_not_its_own(folder):
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("all of it")
    done = onnxopt(folder, "cache", "clear", "--cache", "mine", "--yes")
    assert done.returncode == 0
    assert (folder / "mine" / "thesis.txt").exists()
    check(onnxopt(folder, "cache", "clear", "--cache", "mine"), 2, "nothing was removed")


RECIPES = [
    ("model: {{ m }}\n", "a key is no text"),
    ("model: mlp.onnx\npasses: [rewrite]\nlock: 5\n", "lock is 5"),
    ("model: mlp.onnx\noptimize: {candidates: [{passes: [rewrite]}, {passes: [rewrite]}]}\n", "there is a candidate"),
    ("model: mlp.onnx\noptimize: {candidates: [{name: input, passes: []}]}\n", "there is a candidate 'input' already"),
    ("model: mlp.onnx\nbudget: {max_latency: 5}\npasses: [rewrite]\n", "'5' is not a time such as 5ms"),
]


@pytest.mark.parametrize(("text", "told"), RECIPES)
def test_recipes_that_say_nothing_sensible(folder, text, told):
    (folder / "bad.yaml").write_text(text)
    check(onnxopt(folder, "run", "bad.yaml"), 2, told, "bad.yaml:")
