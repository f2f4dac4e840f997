"""Metrics by name. Each sample gives a contribution; all contributions together give the score.

So scores need no outputs kept in memory, and an interval comes from resampling the contributions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from onnxopt.errors import DataError, UsageError
from onnxopt.evaluate.drift import DriftMeter, OutputDrift, decision_axis, merged
from onnxopt.options import build, dump, option, options
from onnxopt.registry import resolve
from onnxopt.user_code import call_user, code_fingerprint, is_function_place, load_function

Array = np.ndarray[Any, Any]
Outputs = Mapping[str, Array]
Goal = Literal["max", "min"]


class Metric(ABC):
    """A score over samples.

    Attributes:
        name: What recipes and ``--metric`` call it.
        needs: What each sample's outputs are held against: its label, or the outputs of the original model.
    """

    name: ClassVar[str]
    needs: ClassVar[Literal["label", "reference"]] = "label"

    @abstractmethod
    def measure(self, outputs: Outputs, truth: Any) -> Any:
        """Return one sample's contribution.

        Args:
            outputs: By name.
            truth: The label, or the reference outputs, by ``needs``.
        """

    @abstractmethod
    def combine(self, contributions: Sequence[Any]) -> float:
        """Return the score of all contributions."""

    def decisions(self, label: Array) -> int:
        """Return how many right or wrong answers a sample adds; 0 where the score is no share of such."""
        return 0

    @property
    def higher_is_better(self) -> bool:
        """Whether a lower score is a loss."""
        return True

    @property
    def label(self) -> str:
        """What reports call it."""
        return self.name

    @property
    def options(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return dump(self)

    @property
    def fingerprint(self) -> str:
        """What the score depends on besides model and data."""
        return f"{self.name}{sorted(self.options.items())}"


def make_metric(
    name: str, values: Mapping[str, Any] | None = None, *, goal: Goal | None = None, where: str = "metric"
) -> Metric:
    """Return a metric by name, or the user's own by ``module:function``.

    Args:
        name: ``top1``, …, or ``module:function`` taking (outputs, labels), lists over all samples.
        values: Options.
        goal: For a user's function; ``max`` if None. The built-in metrics have theirs.
        where: Told in errors.

    Raises:
        UsageError: There is no such metric, or an option does not fit.
    """
    if is_function_place(name):
        return build(UserMetric, {"function": name, "goal": goal or "max"}, where=where)
    cls: type[Metric] = resolve("metrics", name)
    if goal is not None:
        raise UsageError(f"metric {name!r} has its own goal", where=where, hint="a goal is for module:function")
    return build(cls, values or {}, where=f"{where} {name!r}")


@options
class _OneOutput(Metric):
    """A metric of one output."""

    output: str | None = option("the output to score; the first if not given", default=None)

    def pick(self, outputs: Outputs) -> Array:
        """Return the chosen output, or the first."""
        if self.output is None:
            return next(iter(outputs.values()))
        if self.output not in outputs:
            raise UsageError(f"the model has no output {self.output!r}", hint=f"it has: {', '.join(outputs)}")
        return outputs[self.output]


def _scores_by_class(array: Array) -> Array:
    """Return [decisions, classes]: the axis an argmax decides over comes last, all others are flattened."""
    axis = decision_axis(array.shape)
    if axis is None:
        raise DataError(f"an output of shape {list(array.shape)} holds no scores by class")
    moved = np.moveaxis(array, axis, -1)
    return moved.reshape(-1, moved.shape[-1])


def _class_labels(label: Array, count: int) -> Array:
    flat = _numbers(label)
    if len(flat) != count:
        raise DataError(
            f"the label has {len(flat)} entries, the outputs {count} decisions", hint="one label a decision"
        )
    return flat


def _numbers(label: Any) -> Array:
    """Return a label as a flat array of numbers; a text is none, and would never be equal to one."""
    flat = np.asarray(label).reshape(-1)
    if flat.dtype.kind not in "biuf":
        hint = "number the classes as the model does, from 0; or write a metric of your own"
        raise DataError(f"the label {flat[:1].tolist()} is no number", hint=hint)
    return flat


class _Decisions(_OneOutput):
    def decisions(self, label: Array) -> int:
        """Each entry of the label is one."""
        return int(np.asarray(label).size)


class _TopK(_Decisions):
    depth: ClassVar[int]

    def measure(self, outputs: Outputs, truth: Array) -> Array:
        """Return for each decision whether the label is among the highest scores."""
        scores = _scores_by_class(self.pick(outputs))
        labels = _class_labels(truth, len(scores))
        top = np.argsort(-scores, axis=-1, kind="stable")[:, : self.depth]
        return np.asarray((top == labels[:, None]).any(axis=-1))

    def combine(self, contributions: Sequence[Array]) -> float:
        """Return the share that is right."""
        return float(np.concatenate(contributions).mean())


@options
class Top1(_TopK):
    """Share of samples whose highest score is the label's."""

    name: ClassVar[str] = "top1"
    depth: ClassVar[int] = 1


@options
class Top5(_TopK):
    """Share of samples whose label is among the five highest scores."""

    name: ClassVar[str] = "top5"
    depth: ClassVar[int] = 5


@options
class F1(_Decisions):
    """F1 of a class against the rest, or the unweighted mean over all classes that are true or predicted."""

    name: ClassVar[str] = "f1"
    average: Literal["macro", "binary"] = option("binary: of the class 1 alone", default="macro")

    def measure(self, outputs: Outputs, truth: Array) -> Array:
        """Return pairs (predicted class, label), [decisions, 2]."""
        scores = _scores_by_class(self.pick(outputs))
        return np.stack([scores.argmax(-1), _class_labels(truth, len(scores)).astype(np.int64)], axis=-1)

    def combine(self, contributions: Sequence[Array]) -> float:
        """Return 2 TP / (2 TP + FP + FN), averaged."""
        guess, truth = np.concatenate(contributions).T
        classes = [1] if self.average == "binary" else sorted({*guess.tolist(), *truth.tolist()})
        return float(np.mean([_f1(guess == c, truth == c) for c in classes]))


@options
class Auc(_OneOutput):
    """Area under the ROC curve of a score for the positive class."""

    name: ClassVar[str] = "auc"
    positive: int = option("which entry of the last axis is the positive class's score", default=-1)

    def measure(self, outputs: Outputs, truth: Array) -> Array:
        """Return pairs (score, label), [decisions, 2]."""
        label = _numbers(truth).astype(np.float64)
        scores = self.pick(outputs)
        chosen = scores.reshape(-1) if scores.size == label.size else scores[..., self.positive].reshape(-1)
        if chosen.size != label.size:
            raise DataError(f"the label has {label.size} entries, the output {chosen.size} scores")
        return np.stack([chosen.astype(np.float64), label], axis=-1)

    def combine(self, contributions: Sequence[Array]) -> float:
        """Return the share of (positive, negative) pairs in order; ties count half (Mann and Whitney 1947)."""
        scores, labels = np.concatenate(contributions).T
        positive = labels > 0
        wins = _ranks(scores)[positive].sum() - positive.sum() * (positive.sum() + 1) / 2
        pairs = positive.sum() * (~positive).sum()
        return float(wins / pairs) if pairs else float("nan")


class _Paired(_OneOutput):
    def measure(self, outputs: Outputs, truth: Array) -> Array:
        """Return pairs (value, label), [values, 2]."""
        value, label = self.pick(outputs).reshape(-1), _numbers(truth)
        if value.size != label.size:
            raise DataError(f"the label has {label.size} entries, the output {value.size} values")
        return np.stack([value.astype(np.float64), label.astype(np.float64)], axis=-1)


@options
class Pearson(_Paired):
    """Linear correlation of values and labels."""

    name: ClassVar[str] = "pearson"

    def combine(self, contributions: Sequence[Array]) -> float:
        """Return the correlation coefficient."""
        return _correlation(*np.concatenate(contributions).T)


@options
class Spearman(_Paired):
    """Rank correlation of values and labels."""

    name: ClassVar[str] = "spearman"

    def combine(self, contributions: Sequence[Array]) -> float:
        """Return the correlation of the ranks; ties share their mean rank."""
        values, labels = np.concatenate(contributions).T
        return _correlation(_ranks(values), _ranks(labels))


@options
class MeanSquaredError(_Paired):
    """Mean squared difference of values and labels."""

    name: ClassVar[str] = "mse"

    @property
    def higher_is_better(self) -> bool:
        """An error is a loss."""
        return False

    def combine(self, contributions: Sequence[Array]) -> float:
        """Return the mean over all values."""
        values, labels = np.concatenate(contributions).T
        return float(np.mean(np.square(values - labels)))


@options
class _EditRate(_OneOutput):
    blank: int = option("the CTC blank's class", default=0)

    @property
    def higher_is_better(self) -> bool:
        """An error is a loss."""
        return False

    def units(self, ids: Sequence[int]) -> Sequence[Any]:
        """Return what edits are counted in."""
        return ids

    def measure(self, outputs: Outputs, truth: Array) -> Array:
        """Return (edits, length) of the greedy CTC reading of scores [1, time, classes] against label ids."""
        ids = self.pick(outputs).argmax(axis=-1).reshape(-1)
        kept = [int(i) for n, i in enumerate(ids) if i != self.blank and (n == 0 or i != ids[n - 1])]
        want = self.units([int(i) for i in np.asarray(truth).reshape(-1)])
        return np.asarray([edit_distance(self.units(kept), want), len(want)])

    def combine(self, contributions: Sequence[Array]) -> float:
        """Return edits over the length of the truth."""
        edits, length = np.sum(contributions, axis=0)
        return float(edits / max(length, 1))


@options
class CharacterErrorRate(_EditRate):
    """Edits a character of truth, after greedy CTC decoding; labels are class ids."""

    name: ClassVar[str] = "cer"


@options
class WordErrorRate(_EditRate):
    """Edits a word of truth, after greedy CTC decoding; labels are class ids."""

    name: ClassVar[str] = "wer"
    space: int = option("the class that separates words", default=1)

    def units(self, ids: Sequence[int]) -> Sequence[Any]:
        """Return the words, as tuples of ids."""
        words: list[tuple[int, ...]] = [()]
        for i in ids:
            words = [*words, ()] if i == self.space else [*words[:-1], (*words[-1], i)]
        return [word for word in words if word]


@options
class Perplexity(_OneOutput):
    """How many tokens a language model wavers between: exp of the mean negative log-likelihood of the next token."""

    name: ClassVar[str] = "perplexity"

    @property
    def higher_is_better(self) -> bool:
        """Doubt is a loss."""
        return False

    def measure(self, outputs: Outputs, truth: Array) -> Array:
        """Return (nats, tokens) of logits [batch, sequence, vocabulary] against token ids [batch, sequence].

        The logits at a place are held against the id at the next one, so that the first id is never asked for; a
        label may leave out a batch of one. Ids below 0 are padding and not counted.
        """
        logits, ids = self.pick(outputs), _numbers(truth).astype(np.int64)
        if logits.ndim != 3 or ids.size != logits.shape[0] * logits.shape[1]:
            hint = "the label repeats the token ids, [batch, sequence]"
            raise DataError(f"the label has {ids.size} token ids, the output is {list(logits.shape)}", hint=hint)
        if ids.max(initial=0) >= logits.shape[2]:
            raise DataError(f"the label has the token id {ids.max()}, the output {logits.shape[2]} logits a token")
        wanted = ids.reshape(logits.shape[:2])[:, 1:]
        nats = _nats(logits[:, :-1], np.maximum(wanted, 0))[wanted >= 0]
        return np.asarray([nats.sum(), nats.size])

    def combine(self, contributions: Sequence[Array]) -> float:
        """Return exp of nats a token."""
        nats, tokens = np.sum(contributions, axis=0)
        with np.errstate(over="ignore"):  # a model that rules out what comes is infinitely perplexed
            return float(np.exp(nats / tokens)) if tokens else float("nan")


class _Fidelity(Metric):
    needs: ClassVar[Literal["label", "reference"]] = "reference"

    def measure(self, outputs: Outputs, truth: Outputs) -> DriftMeter:
        """Return the sums a drift is made of."""
        meter = DriftMeter()
        meter.add(truth, outputs)
        return meter

    def combine(self, contributions: Sequence[DriftMeter]) -> float:
        """Return the worst output's figure over all samples."""
        found = [figure for o in merged(contributions).outputs if (figure := self.figure(o)) is not None]
        return min(found, default=float("nan"))

    @abstractmethod
    def figure(self, drift: OutputDrift) -> float | None:
        """Return one output's figure, None where it has none."""


@options
class Sqnr(_Fidelity):
    """Signal to quantization noise ratio against the original model, dB; the worst float output."""

    name: ClassVar[str] = "sqnr"

    def figure(self, drift: OutputDrift) -> float | None:
        """Return decibels; an output that never varies has none."""
        return None if drift.constant else drift.sqnr_db


@options
class Cosine(_Fidelity):
    """Cosine similarity to the original model's outputs; the worst float output."""

    name: ClassVar[str] = "cosine"

    def figure(self, drift: OutputDrift) -> float | None:
        """Return the similarity."""
        return drift.cosine


@options
class Agreement(_Fidelity):
    """Share of decisions (argmax, or whole values of integer outputs) equal to the original model's."""

    name: ClassVar[str] = "agreement"

    def figure(self, drift: OutputDrift) -> float | None:
        """Return the share."""
        return drift.agreement


@options
class UserMetric(Metric):
    """A user's function of all outputs and all labels."""

    name: ClassVar[str] = "function"
    function: str = option("module:function(outputs, labels) -> float; lists with one entry a sample")
    goal: Goal = option("whether higher or lower is better", default="max")

    def measure(self, outputs: Outputs, truth: Array) -> tuple[Outputs, Array]:
        """Keep both for the function."""
        return outputs, truth

    def decisions(self, label: Array) -> int:
        """Each entry of a label of whole numbers is taken for one, unless it is one-hot."""
        if label.dtype.kind not in "biu":
            return 1
        one_hot = label.size > 2 and label.max() == 1 and label.sum() == 1 and label.min() == 0
        return 1 if one_hot else int(label.size)

    def combine(self, contributions: Sequence[tuple[Outputs, Array]]) -> float:
        """Return what the function says."""
        outputs, labels = zip(*contributions, strict=True)
        value = call_user(load_function(self.function), self.function, list(outputs), list(labels))
        try:
            return float(value)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{self.function} returned {value!r}, not a number") from error

    @property
    def label(self) -> str:
        """The function's name."""
        return self.function.rpartition(":")[2]

    @property
    def higher_is_better(self) -> bool:
        """As the user says."""
        return self.goal == "max"

    @property
    def fingerprint(self) -> str:
        """The function's code too."""
        return f"{self.function}{self.goal}{code_fingerprint(self.function)}"


def edit_distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Return the least insertions, deletions and substitutions between two sequences (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]


def _nats(logits: Array, ids: Array) -> Array:
    """Return the negative log-likelihood of each id under a softmax over the last axis, in float64."""
    logits = logits.astype(np.float32, copy=False)
    highest = logits.max(axis=-1, keepdims=True)
    total = np.log(np.exp(logits - highest).sum(axis=-1, dtype=np.float64))
    chosen = np.take_along_axis(logits, ids[..., None], axis=-1)
    return np.asarray(total - (chosen - highest)[..., 0].astype(np.float64))


def _f1(guess: Array, truth: Array) -> float:
    hits = (guess & truth).sum()
    return float(2 * hits / max(guess.sum() + truth.sum(), 1))


def _ranks(values: Array) -> Array:
    """Return ranks from 1; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[inverse])


def _correlation(a: Array, b: Array) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size else float("nan")
