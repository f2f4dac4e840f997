"""How a target that is not at hand takes each scheme of numbers: data, the first row that fits counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxopt.errors import UsageError, did_you_mean
from onnxopt.targets.target import Target

VNNI = frozenset({"avx512-vnni", "avx-vnni"})
"""Instruction sets that add four products in an int32 at once, so that no sum of two saturates in an int16."""


@dataclass(frozen=True, slots=True)
class Way:
    """How targets of a kind take some schemes.

    Attributes:
        schemes: Names, as ``--scheme`` takes them.
        device: Of the targets.
        runtimes: In which it is so.
        precision: That the targets must have.
        has: Instruction sets of which the targets have one; empty: whatever they have.
        lacks: Instruction sets of which they have none.
        options: Of the scheme's pass.
        narrow: Whether layers whose sums of products saturate, which samples tell, get 7-bit weights.
        why: The reason for that, for people; empty where there is nothing to tell.
    """

    schemes: tuple[str, ...]
    device: str
    runtimes: tuple[str, ...]
    precision: str = "float32"
    has: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()
    options: Mapping[str, object] = field(default_factory=dict)
    narrow: bool = False
    why: str = ""

    def fits(self, target: Target, runtime: str, scheme: str) -> bool:
        """Whether this is how a target takes a scheme in a runtime."""
        isa = frozenset(target.isa)
        kind = self.device == target.device and runtime in self.runtimes and self.precision in target.precisions
        return kind and scheme in self.schemes and (not self.has or bool(self.has & isa)) and not self.lacks & isa


def find_way(target: Target, runtime: str, scheme: str) -> Way:
    """Return how a target takes a scheme in a runtime.

    Raises:
        UsageError: It does not have the runtime, or the runtime cannot run the scheme there.
    """
    check_runtime(target, runtime)
    for way in _ROWS:
        if way.fits(target, runtime, scheme):
            return way
    others = [f"{one} in {name}" for name in target.runtimes for one in schemes_of(target, name)]
    raise UsageError(
        f"{runtime} on target {target.name!r} does not run scheme {scheme!r}",
        hint=f"what runs there: {', '.join(others)}",
    )


def saturates(target: Target) -> bool:
    """Whether sums of two products of uint8 and int8 saturate on a target."""
    return bool(_X86 & {*target.isa}) and not VNNI & {*target.isa}


def check_runtime(target: Target, runtime: str) -> None:
    """Raise UsageError if a target does not have a runtime."""
    if runtime not in target.runtimes:
        raise UsageError(
            f"target {target.name!r} has no runtime {runtime!r}", hint=did_you_mean(runtime, list(target.runtimes))
        )


def schemes_of(target: Target, runtime: str) -> tuple[str, ...]:
    """Return the schemes that a runtime runs on a target."""
    known = dict.fromkeys(scheme for way in _ROWS for scheme in way.schemes)
    return tuple(scheme for scheme in known if any(way.fits(target, runtime, scheme) for way in _ROWS))


_X86 = frozenset({"avx2"})
_CPU = ("ort", "openvino")
_CALIBRATED = ("int8", "mixed")
_ROWS = (
    Way(
        _CALIBRATED,
        "cpu",
        _CPU,
        "int8",
        has=_X86,
        lacks=VNNI,
        narrow=True,
        why="without VNNI, sums of two products of uint8 and int8 saturate in an int16; with 7-bit weights they fit",
    ),
    Way(
        ("int8-dynamic",),
        "cpu",
        _CPU,
        "int8",
        has=_X86,
        lacks=VNNI,
        options={"reduce_range": True},
        why="without VNNI, sums of two products saturate; which ones cannot be told where ranges are found as the"
        " model runs, so that all weights get 7 bits",
    ),
    Way(
        (*_CALIBRATED, "int8-dynamic"),
        "cpu",
        _CPU,
        "int8",
        has=VNNI,
        why="VNNI adds four products in an int32, so that none needs narrower weights",
    ),
    Way(
        (*_CALIBRATED, "int8-dynamic"),
        "cpu",
        ("ort",),
        "int8",
        has=frozenset({"neon-dot"}),
        # github.com/microsoft/onnxruntime/pull/9902 lists the kernels; its quantization guide names no faster one.
        why="uint8 activations, as on x86: ONNX Runtime has dot-product kernels for them as for int8 ones, and int8"
        " would round what Relu makes to half as many steps; nothing saturates",
    ),
    Way(("int4", "fp16", "bf16"), "cpu", _CPU, why="numbers are stored in fewer bits, which every CPU reads"),
    Way(
        ("int8",),
        "gpu",
        ("tensorrt",),
        "int8",
        # NVIDIA TensorRT developer guide, Working with Quantized Types
        why="TensorRT takes int8 whose zero points are 0, for activations as for weights",
    ),
    Way(
        ("fp16",),
        "gpu",
        ("tensorrt", "ort"),
        "float16",
        options={"mode": "compute"},
        why="the GPU computes in float16 itself, so that operators move to it with their weights",
    ),
)
