"""What needs torch, which the core install lacks."""

from __future__ import annotations

from importlib.util import find_spec

from onnxopt.errors import MissingExtraError


def need_torch(what: str) -> None:
    """Raise MissingExtraError, which tells what needs it, unless torch is installed."""
    if find_spec("torch") is None:
        raise MissingExtraError(f"{what} needs torch", hint="pip install 'onnxopt[torch]'")
