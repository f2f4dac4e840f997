"""What a recipe says, typed, and how it is read from YAML.

Sections: ``purpose, model, data, metric, budget, target, runtime, seed`` and one of ``passes`` (do exactly this) or
``optimize`` (search). Every option is declared by the class it belongs to; nothing is repeated here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from onnxopt.compile.engine import Backend, make_backend
from onnxopt.data.source import Source, make_source
from onnxopt.errors import OnnxoptError, RecipeError, did_you_mean
from onnxopt.evaluate.budget import Budget
from onnxopt.evaluate.metrics import Metric, make_metric
from onnxopt.options import build, option, options
from onnxopt.passes import Pass, make_pass
from onnxopt.recipe.quantities import seconds, share, size
from onnxopt.recipe.source_map import Place, line_of, load_yaml, place_text
from onnxopt.targets.target import Target, target
from onnxopt.user_code import is_function_place

T = TypeVar("T")

BASELINE = "input"
"""Name of the candidate that is the input as it came; no other may have it."""


@options
class ExportSpec:
    """A torch module to start from."""

    export: str = option("module:function that returns the module, or a .pt2 file")
    weights: str | None = option("a state dict to load, with weights_only", default=None)
    dynamic: dict[str, str] = option("dynamic dimensions: NAME: MIN..MAX", default={})
    opset: int = option("opset of the result", default=18)


@options
class SearchSpec:
    """What ``optimize`` may try and what it aims at."""

    objective: Literal["latency", "size", "memory"] = option("what to make small", default="latency")
    runtime: Literal["any", "ort", "openvino"] = option("which runtimes to try", default="any")
    only: bool = option("try nothing but the candidates listed", default=False)


@dataclass(frozen=True)
class CandidateSpec:
    """A candidate of the user's own.

    Attributes:
        name: For people.
        passes: Applied to the input, in order.
        backend: What it runs in.
    """

    name: str
    passes: tuple[Pass, ...]
    backend: Backend


@dataclass(frozen=True)
class Limits:
    """Bounds a result must keep besides accuracy; None: no bound.

    Attributes:
        latency: Median seconds.
        size: Bytes of the model's files.
    """

    latency: float | None = None
    size: int | None = None

    def missed(self, latency: float | None, size: int | None) -> str | None:
        """Return the bound that a result with this median latency and size misses, None if it keeps both."""
        if self.latency is not None and latency is not None and latency > self.latency:
            return f"takes {latency * 1e3:.3g} ms, more than the {self.latency * 1e3:.3g} ms asked for"
        if self.size is not None and size is not None and size > self.size:
            return f"has {size:,} bytes, more than the {self.size:,} asked for"
        return None


@dataclass(frozen=True)
class DataSpec:
    """Where samples come from.

    Attributes:
        path: What ``--data`` takes, relative to the recipe's folder; or None.
        samples: All of them, to be split; or None.
        calibration: What may be tuned by.
        evaluation: What the result is judged by.
    """

    path: str | None = None
    samples: Source | None = None
    calibration: Source | None = None
    evaluation: Source | None = None


@dataclass(frozen=True)
class Recipe:
    """A whole recipe.

    Attributes:
        purpose: One sentence for people.
        model: Path of the ``.onnx`` file, or a torch module to export.
        data: Samples, if any.
        metric: How results are scored; None for fidelity to the input model.
        budget: What may be lost.
        limits: What must be kept.
        target: Where the result will run.
        backend: The runtime ``passes`` are measured in.
        seed: For every random choice.
        passes: What to do, in order; None if ``search`` decides.
        search: What to try; None if ``passes`` decide.
        candidates: To try besides what ``search`` says.
        lock: Digests an earlier run wrote down, to be held against; None in a recipe people wrote.
        base: The folder relative paths start from.
        source: Where the recipe was written, for messages.
    """

    model: Path | ExportSpec
    purpose: str = ""
    data: DataSpec = field(default_factory=DataSpec)
    metric: Metric | None = None
    budget: Budget = field(default_factory=Budget)
    limits: Limits = field(default_factory=Limits)
    target: Target = field(default_factory=target)
    backend: Backend = field(default_factory=lambda: make_backend("ort"))
    seed: int = 0
    passes: tuple[Pass, ...] | None = None
    search: SearchSpec | None = None
    candidates: tuple[CandidateSpec, ...] = ()
    lock: Mapping[str, Any] | None = None
    base: Path = field(default_factory=Path)
    source: str = "command line"


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        RecipeError: It cannot be read, or a key, type or value is wrong; with file, line and path.
    """
    content, lines = load_yaml(path)
    return _Reader(path, lines).recipe(content)


_SECTIONS = (
    "purpose",
    "model",
    "data",
    "metric",
    "budget",
    "target",
    "runtime",
    "seed",
    "passes",
    "optimize",
    "lock",
)


class _Reader:
    """Turns parsed YAML into a recipe, knowing for every error where it stands."""

    def __init__(self, path: Path, lines: Mapping[Place, int]) -> None:
        self._path = path
        self._lines = lines

    def recipe(self, content: Any) -> Recipe:
        self._mapping(content, (), _SECTIONS)
        if "model" not in content:
            raise self._error("the recipe names no model", (), "add  model: PATH.onnx")
        if ("passes" in content) == ("optimize" in content):
            raise self._error("give either passes or optimize", (), "passes: what to do; optimize: what to search for")
        budget, limits = self._budget(content.get("budget", {}))
        return Recipe(
            model=self._model(content["model"]),
            purpose=self._text(content.get("purpose", ""), ("purpose",)),
            data=self._data(content.get("data")),
            metric=self._metric(content.get("metric")),
            budget=budget,
            limits=limits,
            target=self._target(content.get("target", {})),
            backend=self._backend(content.get("runtime", "ort"), ("runtime",)),
            seed=self._integer(content.get("seed", 0), ("seed",)),
            passes=self._passes(content["passes"], ("passes",)) if "passes" in content else None,
            search=self._search(content["optimize"]) if "optimize" in content else None,
            candidates=self._candidates(content.get("optimize") or {}),
            lock=self._lock(content.get("lock")),
            base=self._path.parent,
            source=str(self._path),
        )

    def _model(self, value: Any) -> Path | ExportSpec:
        place = ("model",)
        if isinstance(value, str):
            return self._path.parent / value
        if isinstance(value, dict) and "path" in value:
            self._mapping(value, place, ("path",))
            return self._path.parent / self._text(value["path"], (*place, "path"))
        self._mapping(value, place, None)
        return self._built(ExportSpec, value, place)

    def _data(self, value: Any) -> DataSpec:
        if value is None:
            return DataSpec()
        if isinstance(value, str):
            return DataSpec(path=value if is_function_place(value) else str(self._path.parent / value))
        self._mapping(value, ("data",), None)
        if set(value) & {"calibration", "evaluation"}:
            self._mapping(value, ("data",), ("calibration", "evaluation"))
            parts = {key: self._source(part, ("data", key)) for key, part in value.items()}
            return DataSpec(calibration=parts.get("calibration"), evaluation=parts.get("evaluation"))
        return DataSpec(samples=self._source(value, ("data",)))

    def _source(self, value: Any, place: Place) -> Source:
        if isinstance(value, str):
            value = {"files": value}
        self._mapping(value, place, None)
        return self._guarded(lambda where: make_source(value, where=where, error=RecipeError), place)

    def _metric(self, value: Any) -> Metric | None:
        if value is None:
            return None
        place = ("metric",)
        if isinstance(value, str):
            return self._guarded(lambda where: make_metric(value, where=where), place)
        self._mapping(value, place, None)
        rest = {key: part for key, part in value.items() if key not in ("name", "goal")}
        name = self._text(value.get("name"), (*place, "name"))
        return self._guarded(lambda where: make_metric(name, rest, goal=value.get("goal"), where=where), place)

    def _budget(self, value: Any) -> tuple[Budget, Limits]:
        place = ("budget",)
        self._mapping(value, place, ("max_drop", "min_sqnr", "min_agreement", "max_latency", "max_size"))
        read: dict[str, Callable[[Any], Any]] = {
            "max_drop": share,
            "min_sqnr": float,
            "min_agreement": share,
            "max_latency": lambda value: seconds(str(value)),
            "max_size": lambda value: size(str(value)),
        }
        found = {key: self._quantity(read[key], part, (*place, key)) for key, part in value.items()}
        limits = Limits(found.pop("max_latency", None), found.pop("max_size", None))
        return Budget(**found), limits

    def _target(self, value: Any) -> Target:
        place = ("target",)
        if isinstance(value, str):
            value = {"name": value}
        self._mapping(value, place, ("name", "threads"))
        found = self._guarded(lambda _: target(value.get("name", "local")), (*place, "name"))
        return found.with_threads(self._integer(value.get("threads", 1), (*place, "threads"), least=1))

    def _backend(self, value: Any, place: Place) -> Backend:
        if isinstance(value, str):
            value = {"name": value}
        self._mapping(value, place, None)
        rest = {key: part for key, part in value.items() if key != "name"}
        name = self._text(value.get("name"), (*place, "name"))
        return self._guarded(lambda where: make_backend(name, rest, where=where, error=RecipeError), place)

    def _passes(self, value: Any, place: Place) -> tuple[Pass, ...]:
        items = self._list(value, place, "write one pass a line:  - rewrite")
        return tuple(self._pass(item, (*place, index)) for index, item in enumerate(items))

    def _pass(self, value: Any, place: Place) -> Pass:
        if isinstance(value, str):
            value = {value: {}}
        if not isinstance(value, dict) or len(value) != 1:
            raise self._error("one pass a line is wanted", place, "write  - NAME  or  - NAME: {option: value}")
        name, values = next(iter(value.items()))
        self._mapping(values or {}, (*place, name), None)
        return self._guarded(lambda where: make_pass(str(name), values or {}, where=where, error=RecipeError), place)

    def _lock(self, value: Any) -> Mapping[str, Any] | None:
        if value is not None:
            self._mapping(value, ("lock",), ("input", "steps", "libraries", "machine", "created"))
            self._list(value.get("steps", []), ("lock", "steps"), "write the digest of one step a line")
        return value  # type: ignore[no-any-return]

    def _search(self, value: Any) -> SearchSpec:
        self._mapping(value or {}, ("optimize",), None)
        rest = {key: part for key, part in (value or {}).items() if key != "candidates"}
        return self._built(SearchSpec, rest, ("optimize",))

    def _candidates(self, search: Mapping[str, Any]) -> tuple[CandidateSpec, ...]:
        place = ("optimize", "candidates")
        items = self._list(search.get("candidates", []), place, "write  - {name: ..., passes: [...], runtime: ...}")
        made = tuple(self._candidate(item, (*place, index)) for index, item in enumerate(items))
        names = [BASELINE, *(candidate.name for candidate in made)]
        for index, candidate in enumerate(made):
            if candidate.name in names[: index + 1]:
                what = f"there is a candidate {candidate.name!r} already"
                raise self._error(what, (*place, index), "give it another  name: ...")
        return made

    def _candidate(self, value: Any, place: Place) -> CandidateSpec:
        self._mapping(value, place, ("name", "passes", "runtime"))
        passes = self._passes(value.get("passes", []), (*place, "passes"))
        backend = self._backend(value.get("runtime", "ort"), (*place, "runtime"))
        name = " > ".join(str(change) for change in passes) or "the input"
        return CandidateSpec(self._text(value.get("name", f"{name} in {backend}"), (*place, "name")), passes, backend)

    def _list(self, value: Any, place: Place, hint: str) -> list[Any]:
        if not isinstance(value, list):
            raise self._error(f"{place_text(place)} is no list", place, hint)
        return value

    def _built(self, cls: type[T], value: Mapping[str, Any], place: Place) -> T:
        return self._guarded(lambda where: build(cls, value, where=where, error=RecipeError), place)

    def _guarded(self, make: Callable[[str], T], place: Place) -> T:
        """Call ``make`` with the place to tell; errors that carry none get it, whatever raised them."""
        where = self._where(place)
        try:
            return make(where)
        except OnnxoptError as error:
            path = (error.where or "").rpartition(": ")[2] if ": " in (error.where or "") else ""
            inner = (*place, *(int(p) if p.isdigit() else p for p in path.split("."))) if path else place
            raise RecipeError(error.what, where=self._where(inner), hint=error.hint) from error

    def _quantity(self, read: Callable[[Any], T], value: Any, place: Place) -> T:
        try:
            return read(value)
        except OnnxoptError as error:
            raise self._error(error.what, place, error.hint) from error
        except (TypeError, ValueError) as error:
            raise self._error(f"{value!r} is no number", place, None) from error

    def _integer(self, value: Any, place: Place, least: int = 0) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self._error(f"{place_text(place)} is {value!r}: a whole number from {least} is wanted", place, None)
        return value

    def _text(self, value: Any, place: Place) -> str:
        if not isinstance(value, str):
            raise self._error(f"{place_text(place)} is {value!r}: a text is wanted", place, None)
        return value

    def _mapping(self, value: Any, place: Place, known: Sequence[str] | None) -> None:
        if not isinstance(value, dict):
            name = place_text(place) or "the recipe"
            raise self._error(f"{name} is {value!r}: keys and values are wanted", place, "write  key: value")
        for key in value:
            if known is not None and key not in known:
                raise self._error(f"there is no key {key!r}", (*place, key), did_you_mean(str(key), known))

    def _error(self, what: str, place: Place, hint: str | None) -> RecipeError:
        return RecipeError(what, where=self._where(place), hint=hint)

    def _where(self, place: Place) -> str:
        return f"{self._path}:{line_of(self._lines, place)}" + (f"  {place_text(place)}" if place else "")
