"""The rules, by family; what is true of every runtime comes first."""

from __future__ import annotations

from collections.abc import Mapping

from onnxopt.rewrite.rule import Rule
from onnxopt.rewrite.rules.activations import ACTIVATIONS
from onnxopt.rewrite.rules.affine import AFFINE
from onnxopt.rewrite.rules.attention import ATTENTION
from onnxopt.rewrite.rules.before import BEFORE
from onnxopt.rewrite.rules.chains import CHAINS
from onnxopt.rewrite.rules.columns import COLUMNS
from onnxopt.rewrite.rules.identities import IDENTITIES
from onnxopt.rewrite.rules.joins import JOINS
from onnxopt.rewrite.rules.loops import LOOPS
from onnxopt.rewrite.rules.norms import GROUP_NORMS, NORMS
from onnxopt.rewrite.rules.ort_kernels import ORT_KERNELS
from onnxopt.rewrite.rules.parallel import PARALLEL
from onnxopt.rewrite.rules.quantized import QUANTIZED
from onnxopt.rewrite.rules.recurrent import RECURRENT
from onnxopt.rewrite.rules.shapes import SHAPES
from onnxopt.rewrite.rules.siblings import SIBLINGS
from onnxopt.rewrite.rules.transposes import TRANSPOSES

FAMILIES: Mapping[str, tuple[Rule, ...]] = {
    "identities": IDENTITIES,
    "shapes": SHAPES,
    "chains": CHAINS,
    "joins": JOINS,
    "transposes": TRANSPOSES,
    "columns": COLUMNS,
    "affine": (*AFFINE, *BEFORE),
    "parallel": PARALLEL,
    "activations": ACTIVATIONS,
    "norms": NORMS,
    "quantized": QUANTIZED,
    "recurrent": RECURRENT,
    "loops": LOOPS,
    "siblings": SIBLINGS,
    "attention": ATTENTION,
    "group-norms": GROUP_NORMS,
    "ort-kernels": ORT_KERNELS,
}

ON_REQUEST = frozenset({"siblings", "attention", "group-norms", "ort-kernels"})
"""Families that are applied only where they are named: what they do to latency has not been measured, or they are for
one runtime alone."""


def rules_by_name() -> Mapping[str, Rule]:
    """Return every rule by its name."""
    return {rule.name: rule for rules in FAMILIES.values() for rule in rules}
