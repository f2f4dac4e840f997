"""Pruning by the pass, as a fixture."""

import pytest

from onnxopt.context import Context
from onnxopt.passes import make_pass


@pytest.fixture
def prune(tmp_path):
    """Return a function that prunes a model with the pass ``prune-channels``, or another by its name."""

    def pruned(model, name="prune-channels", *, data=None, original=None, emit=lambda event: None, **values):
        return make_pass(name, values)(model, Context.of(data=data, original=original, scratch=tmp_path, emit=emit))

    return pruned
