"""The rules, by family; what is true of every runtime comes first."""

from __future__ import annotations

from collections.abc import Mapping

from onnxopt.rewrite.rule import Rule
from onnxopt.rewrite.rules.activations import ACTIVATIONS
from onnxopt.rewrite.rules.affine import AFFINE
from onnxopt.rewrite.rules.chains import CHAINS
from onnxopt.rewrite.rules.identities import IDENTITIES
from onnxopt.rewrite.rules.joins import JOINS
from onnxopt.rewrite.rules.norms import NORMS

FAMILIES: Mapping[str, tuple[Rule, ...]] = {
    "identities": IDENTITIES,
    "chains": CHAINS,
    "joins": JOINS,
    "affine": AFFINE,
    "activations": ACTIVATIONS,
    "norms": NORMS,
}
