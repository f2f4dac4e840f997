"""What a pass is: a frozen dataclass that turns one model into another, checked.

An author writes the fields (options), ``edit`` and, where there is something to refuse, ``requires``. The rest of
the contract is in ``Pass.__call__``, which nobody overrides.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, final

import onnx_ir

from onnxopt.context import Context, PassDone, Use
from onnxopt.errors import ModelError, OnnxoptError, PassError, UsageError
from onnxopt.ir.check import checker_complaint
from onnxopt.ir.model import Model, Step, normalise, private_copy
from onnxopt.options import build, describe, dump, option, options
from onnxopt.registry import resolve


class Transform(ABC):
    """Anything that turns a model into a model: a pass, or several."""

    @abstractmethod
    def __call__(self, model: Model, ctx: Context) -> Model:
        """Return the new model, or ``model`` itself where there was nothing to change."""


class Pass(Transform):
    """One named change.

    Attributes:
        name: Verb-noun; what recipes and the command line call it.
        revision: Raised when the same options give another result, so that caches let go of the old one.
        uses: What it reads from the context; part of its cache key.
        libraries: Distributions whose version its result depends on.
        exact: Whether the model must still compute the same, up to rounding; if not, an accuracy budget decides.
        keeps_signature: Whether inputs and outputs stay as they are.
    """

    name: ClassVar[str]
    revision: ClassVar[int] = 1
    uses: ClassVar[frozenset[Use]] = frozenset()
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir")
    exact: ClassVar[bool] = True
    keeps_signature: ClassVar[bool] = True

    def requires(self, graph: onnx_ir.Model, ctx: Context) -> None:
        """Raise PassError if the pass cannot run on this model, with the reason."""

    @classmethod
    def rules(cls) -> Mapping[str, str]:
        """Return the rules it applies, where it tells of each place: what each does, by name."""
        return {}

    @abstractmethod
    def edit(self, graph: onnx_ir.Model, ctx: Context) -> onnx_ir.Model | None:
        """Change ``graph`` and return it or None, or return another model.

        ``graph`` is a private copy whose tensors are shared: replace a tensor, never write into one.
        """

    @final
    def __call__(self, model: Model, ctx: Context) -> Model:
        """Return a new, checked model with this pass in its lineage; ``model`` itself if nothing changed."""
        started = time.perf_counter()
        after = self._changed(model, self._edited(model, ctx.limited(self.uses)))
        ctx.emit(PassDone(self.name, model, after, time.perf_counter() - started))
        return after

    @final
    @property
    def options(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return dump(self)

    def __str__(self) -> str:
        changed = [field.name for field in describe(type(self)) if getattr(self, field.name) != field.default]
        told = [f"{name}={self.options[name]}" for name in changed]
        return f"{self.name}({', '.join(told)})" if told else self.name

    def _edited(self, model: Model, ctx: Context) -> onnx_ir.Model:
        try:
            self.requires(model.graph, ctx)
            clone = private_copy(model.graph)
            return self.edit(clone, ctx) or clone
        except OnnxoptError as error:
            error.where = error.where or f"pass {self.name!r}"
            raise
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise PassError(
                f"pass {self.name!r} failed: {reason}",
                where=repr(model),
                hint="run again with --debug for the traceback; leave the pass out to go on without it",
            ) from error

    def _changed(self, before: Model, graph: onnx_ir.Model) -> Model:
        after = checked(before, graph, f"pass {self.name!r}", keeps_signature=self.keeps_signature)
        if after.digest == before.digest:
            return before
        return Model(graph, (*before.lineage, Step(self.name, self.options, after.digest)))


@final
class Sequence(Transform):
    """Passes one after the other."""

    def __init__(self, *transforms: Transform) -> None:
        self.transforms = transforms

    def __call__(self, model: Model, ctx: Context) -> Model:
        """Return what the last of them returns."""
        for transform in self.transforms:
            model = transform(model, ctx)
        return model


@final
class Repeat(Transform):
    """A transform again and again until it changes nothing more, at most ``limit`` times."""

    def __init__(self, transform: Transform, limit: int = 10) -> None:
        self.transform = transform
        self.limit = limit

    def __call__(self, model: Model, ctx: Context) -> Model:
        """Return the fixpoint, or the model after ``limit`` rounds."""
        for _ in range(self.limit):
            after = self.transform(model, ctx)
            if after.digest == model.digest:
                return after
            model = after
        return model


def make_pass(
    name: str, values: Mapping[str, Any] | None = None, *, where: str = "", error: type[OnnxoptError] = UsageError
) -> Pass:
    """Return the pass of that name with these options.

    Raises:
        error: An option is unknown, missing, of the wrong type or out of range.
        UsageError: There is no such pass.
    """
    cls: type[Pass] = resolve("passes", name)
    return build(cls, values or {}, where=where or f"pass {name!r}", error=error)


def checked(before: Model, graph: onnx_ir.Model, what: str, *, keeps_signature: bool = True) -> Model:
    """Return a changed graph as a model that is sorted, uniquely named and valid.

    Args:
        before: The model it was made from.
        graph: The changed graph, owned by the caller.
        what: The change, for errors.
        keeps_signature: Whether inputs and outputs must be as before; types that were only refined are put back.

    Raises:
        PassError: The interface changed, or onnx's checker objects to the model and did not to the one before.
    """
    if keeps_signature:
        _restore_interface(before, graph)
    try:
        normalise(graph)
    except ModelError as error:
        raise PassError(f"{what} made an invalid model: {error.what}") from error
    after = Model(graph)
    difference = before.signature.difference(after.signature) if keeps_signature else None
    if difference:
        raise PassError(f"{what} changed the model's interface: {difference}")
    complaint = None if after.digest == before.digest else checker_complaint(graph)
    if complaint and checker_complaint(before.graph) is None:
        raise PassError(f"{what} made an invalid model: {complaint}")
    return after


def _restore_interface(before: Model, graph: onnx_ir.Model) -> None:
    """Give inputs and outputs back the types they declared, where the change only refined them."""
    declared = {value.name: value for value in (*before.graph.graph.inputs, *before.graph.graph.outputs)}
    for new in (*graph.graph.inputs, *graph.graph.outputs):
        old = declared.get(new.name)
        if old is not None and old.dtype == new.dtype and _agree(old.shape, new.shape):
            new.type, new.shape = old.type, old.shape


def _agree(old: onnx_ir.Shape | None, new: onnx_ir.Shape | None) -> bool:
    if old is None or new is None:
        return True
    fixed = (pair for pair in zip(old, new, strict=False) if all(isinstance(dim, int) for dim in pair))
    return len(old) == len(new) and all(a == b for a, b in fixed)


__all__ = ["Pass", "Repeat", "Sequence", "Transform", "checked", "make_pass", "option", "options"]
