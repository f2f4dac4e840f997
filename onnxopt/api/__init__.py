"""The verbs as Python functions; the command line only parses, calls one of these, and prints."""

from onnxopt.api.arguments import default_cache
from onnxopt.api.changing import apply_pass, bucket_shapes
from onnxopt.api.looking import compare, evaluate_model, inspect, inspect_groups, profile_model, write_data
from onnxopt.api.optimizing import optimize, run
from onnxopt.api.pruning import prune_model, sweep_model
from onnxopt.api.quantizing import explain_layers, quantize_model

__all__ = [
    "apply_pass",
    "bucket_shapes",
    "compare",
    "default_cache",
    "evaluate_model",
    "explain_layers",
    "inspect",
    "inspect_groups",
    "optimize",
    "profile_model",
    "prune_model",
    "quantize_model",
    "run",
    "sweep_model",
    "write_data",
]
