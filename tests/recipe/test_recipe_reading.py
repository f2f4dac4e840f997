from pathlib import Path

import pytest

from onnxopt.errors import RecipeError
from onnxopt.recipe.recipe import ExportSpec, read_recipe

WHOLE = """\
purpose: everything at once
model: nets/model.onnx
data:
  calibration: {files: "cal/*.npz", limit: 32}
  evaluation: {images: photos, resize: 256, crop: 224, mean: [0.5, 0.5, 0.5], std: [0.2, 0.2, 0.2]}
metric: {name: f1, average: binary}
budget: {max_drop: 2%, min_sqnr: 25, max_latency: 5ms, max_size: 10MB}
target: {threads: 2}
runtime: {name: openvino, precision: bfloat16}
seed: 7
passes:
  - rewrite
  - quantize-static: {scope: all, skip: [conv1]}
"""


@pytest.fixture
def written(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return path

    return write


def test_reads_every_section(written):
    recipe = read_recipe(written(WHOLE))
    assert recipe.model == recipe.base / "nets/model.onnx"
    assert recipe.data.calibration.options["limit"] == 32
    assert recipe.data.evaluation.name == "images"
    assert recipe.metric.options["average"] == "binary"
    assert (recipe.budget.max_drop, recipe.budget.min_sqnr) == (0.02, 25.0)
    assert (recipe.limits.latency, recipe.limits.size) == (0.005, 10_000_000)
    assert recipe.target.threads == 2
    assert str(recipe.backend) == "openvino(precision=bfloat16)"
    assert [str(change) for change in recipe.passes] == ["rewrite", "quantize-static(scope=all, skip=['conv1'])"]
    assert recipe.seed == 7


def test_a_short_recipe_has_defaults(written):
    recipe = read_recipe(written("model: m.onnx\npasses: [rewrite]\n"))
    assert recipe.budget.max_drop == 0.01
    assert str(recipe.backend) == "ort"
    assert recipe.data.path is None
    assert recipe.metric is None


def test_data_may_be_a_path(written):
    recipe = read_recipe(written("model: m.onnx\ndata: samples\npasses: []\n"))
    assert recipe.data.path == str(recipe.base / "samples")


def test_a_model_may_be_exported(written):
    recipe = read_recipe(written("model: {export: 'nets:build', dynamic: {batch: 1..8}}\npasses: []\n"))
    assert isinstance(recipe.model, ExportSpec)
    assert recipe.model.dynamic == {"batch": "1..8"}


def test_a_search_may_have_candidates_of_its_own(written):
    text = """\
model: m.onnx
optimize:
  objective: size
  only: true
  candidates:
    - {name: mine, passes: [rewrite], runtime: {name: fake, latency: 0.5}}
    - {passes: [cast-float16]}
"""
    recipe = read_recipe(written(text))
    assert recipe.search.objective == "size"
    assert recipe.search.only
    assert [own.name for own in recipe.candidates] == ["mine", "cast-float16 in ort"]
    assert recipe.candidates[0].backend.options["latency"] == 0.5


@pytest.mark.parametrize(
    ("text", "line", "what", "hint"),
    [
        ("model: m\npasses: [rewrit]\n", "2  passes[0]", "there is no pass 'rewrit'", "did you mean 'rewrite'?"),
        ("model: m\npass: []\n", "2  pass", "there is no key 'pass'", "did you mean 'passes'?"),
        ("model: m\npasses:\n  - rewrite\n  - quantize-static: {scop: all}\n", "4", "no option 'scop'", "'scope'"),
        ("model: m\npasses:\n  - quantize-static: {samples: '8'}\n", "3", 'samples is "8"', "at most so many"),
        ("model: m\npasses:\n  - quantize-static: {samples: 0}\n", "3", "greater than or equal to 1", ""),
        ("model: m\npasses:\n  - {rewrite: {}, fold-constants: {}}\n", "3", "one pass a line is wanted", "- NAME"),
        ("model: m\npasses: rewrite\n", "2", "passes is no list", "one pass a line"),
        ("model: m\n", "1", "give either passes or optimize", "what to do"),
        ("model: m\npasses: []\noptimize: {}\n", "1", "give either passes or optimize", ""),
        ("passes: []\n", "1", "the recipe names no model", "model: PATH"),
        ("model: m\npasses: []\nbudget: {max_drop: lots}\n", "3", "'lots' is not a share", "units"),
        ("model: m\npasses: []\nbudget:\n  min_sqnr: high\n", "4", "'high' is no number", ""),
        ("model: m\npasses: []\nmetric: topp1\n", "3", "there is no metric 'topp1'", "'top1'"),
        ("model: m\npasses: []\nmetric: {name: top1, output: 3}\n", "3", "output is 3", ""),
        ("model: m\npasses: []\ntarget: {threads: 0}\n", "3", "a whole number from 1", ""),
        ("model: m\npasses: []\ntarget: locl\n", "3", "there is no target 'locl'", "'local'"),
        ("model: m\npasses: []\nruntime: {name: ort, threads: 3}\n", "3", "no option 'threads'", ""),
        ("model: m\npasses: []\nruntime: onnx\n", "3", "there is no backend 'onnx'", ""),
        ("model: m\npasses: []\ndata: {pictures: x}\n", "3", "cannot tell what kind of data", "images"),
        ("model: m\npasses: []\ndata: {images: x, crp: 3}\n", "3", "no option 'crp'", "'crop'"),
        ("model: m\npasses: []\nseed: -1\n", "3", "seed is -1", ""),
        ("model: m\noptimize: {objective: speed}\n", "2", 'objective is "speed"', "what to make small"),
        ("model: m\noptimize:\n  candidates:\n    - {passes: [nope]}\n", "4", "there is no pass 'nope'", ""),
        ("model: m\nmodel: n\npasses: []\n", "2", "the key 'model' stands twice", ""),
        ("model: [\n", "2", "the recipe is no YAML", ""),
        ("- rewrite\n", "1", "keys and values are wanted", "key: value"),
        ("", "1", "keys and values are wanted", ""),
        ("model: !!python/object/apply:os.system ['true']\npasses: []\n", "1", "the recipe is no YAML", ""),
    ],
)
def test_errors_say_what_where_and_what_to_do(written, text, line, what, hint):
    path = written(text)
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    error = caught.value
    assert what in error.what
    assert error.where.startswith(f"{path}:{line}")
    assert hint in (error.hint or "")
    assert error.exit_code == 2


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(RecipeError, match="No such file"):
        read_recipe(tmp_path / "nope.yaml")


def test_a_binary_file_is_told(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(RecipeError, match=r"no text file|no YAML"):
        read_recipe(path)


@pytest.mark.parametrize("path", sorted(Path("recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_recipe_reads_and_tells_its_purpose_and_what_was_measured(path: Path) -> None:
    assert read_recipe(path).purpose
    head = "".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    assert "Measured:" in head
    assert f"onnxopt run recipes/{path.name}" in head
