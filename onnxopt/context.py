"""What a pass may use besides the model, and how it tells what it is doing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from onnxopt.data.sample import Samples
from onnxopt.errors import PassError
from onnxopt.ir.model import Model
from onnxopt.targets.target import Target, local_target

Use = Literal["target", "data", "original", "seed", "scratch"]
ALL_USES: frozenset[Use] = frozenset({"target", "data", "original", "seed", "scratch"})


class Verifies(Protocol):
    """What holds a changed model to computing the same; see ``evaluate.verify.Verifier``."""

    def verify(self, before: Model, after: Model, what: str) -> object:
        """Raise VerificationError or UnverifiableError unless ``after``, made by ``what``, computes the same."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Work inside a step: ``done`` of ``total`` (None: unknown) units of ``what``."""

    what: str
    done: int
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the user should know, that stops nothing."""

    text: str


@dataclass(frozen=True, slots=True)
class PassDone:
    """A pass has run; ``after`` is ``before`` itself where it changed nothing."""

    name: str
    before: Model
    after: Model
    seconds: float


@dataclass(frozen=True, slots=True)
class Fired:
    """An application of a rewrite rule.

    Attributes:
        rule: Its name.
        node: Name of the node it fired at.
        nodes: How many nodes fewer there are.
        bytes: How many bytes of weights fewer there are.
    """

    rule: str
    node: str
    nodes: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Missed:
    """A rule that came close: its name, the node it looked at, the reason and the node to blame."""

    rule: str
    node: str
    reason: str
    blamed: str


Event = Progress | Warned | PassDone | Fired | Missed


def ignore(event: Event) -> None:
    """Listen to nothing."""


@dataclass(frozen=True)
class Context:
    """The surroundings of a pass.

    A pass sees only what it declares in ``uses``; reading anything else is an error, because the pass's cache key
    is made of what it declared.

    Attributes:
        emit: Where events go.
        granted: What may be read.
        verifier: Whoever verifies the pass's result on the same ``data``, so that no model is run twice; None if
            nobody does.
        kept: A folder that outlives the run, where a pass finds unfinished work again by its content; None if
            nothing is kept. It must be another for each build of this program.
    """

    emit: Callable[[Event], None] = ignore
    _target: Target = field(default_factory=local_target)
    _data: Samples | None = None
    _original: Model | None = None
    _seed: int = 0
    _scratch: Path | None = None
    granted: frozenset[Use] = ALL_USES
    verifier: Verifies | None = None
    kept: Path | None = None

    @classmethod
    def of(
        cls,
        *,
        target: Target | None = None,
        data: Samples | None = None,
        original: Model | None = None,
        seed: int = 0,
        scratch: Path | None = None,
        emit: Callable[[Event], None] = ignore,
        verifier: Verifies | None = None,
        kept: Path | None = None,
    ) -> Context:
        """Make a context that grants everything.

        Args:
            target: Where the model will run; this machine if None.
            data: Calibration samples; never those the result is judged by.
            original: The model as it was before anything was done to it.
            seed: For every random choice.
            scratch: A folder for temporary files.
            emit: Where events go.
            verifier: Whoever verifies the result on ``data``.
            kept: A folder that outlives the run.
        """
        return cls(emit, target or local_target(), data, original, seed, scratch, verifier=verifier, kept=kept)

    def limited(self, uses: frozenset[Use]) -> Context:
        """Return this context with everything but ``uses`` denied."""
        return replace(self, granted=uses & self.granted)

    def listening(self, emit: Callable[[Event], None]) -> Context:
        """Return this context with events going to another listener as well."""

        def both(event: Event) -> None:
            self.emit(event)
            emit(event)

        return replace(self, emit=both)

    @property
    def target(self) -> Target:
        """Where the model will run."""
        self._check("target")
        return self._target

    @property
    def data(self) -> Samples:
        """Calibration samples.

        Raises:
            PassError: There are none.
        """
        self._check("data")
        if self._data is None:
            raise PassError(
                "this step needs calibration data, and none was given",
                hint="add --data PATH, or data: {calibration: {files: ...}} to the recipe",
            )
        return self._data

    @property
    def has_data(self) -> bool:
        """Whether there are calibration samples."""
        self._check("data")
        return self._data is not None

    @property
    def original(self) -> Model:
        """The model as it was before anything was done to it.

        Raises:
            PassError: It is not known.
        """
        self._check("original")
        if self._original is None:
            raise PassError(
                "this step holds the model against the original, which is not known",
                hint="run it behind the steps that change the model, in one recipe or command",
            )
        return self._original

    @property
    def seed(self) -> int:
        """For every random choice."""
        self._check("seed")
        return self._seed

    @property
    def scratch(self) -> Path:
        """A folder for temporary files, emptied by whoever made the context."""
        self._check("scratch")
        if self._scratch is None:
            raise PassError("this step needs a scratch folder, and the context has none")
        return self._scratch

    def _check(self, use: Use) -> None:
        if use not in self.granted:
            raise PassError(
                f"a pass read ctx.{use} without declaring it",
                hint=f"add {use!r} to the pass's `uses`, so that its cache key covers it",
            )
