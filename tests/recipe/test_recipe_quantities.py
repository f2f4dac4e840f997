import pytest

from onnxopt.errors import UsageError
from onnxopt.recipe.quantities import seconds, share, size


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (share, "1%", 0.01),
        (share, "0.5 %", 0.005),
        (share, "0.02", 0.02),
        (share, 0.02, 0.02),
        (seconds, "5ms", 0.005),
        (seconds, "1.5 s", 1.5),
        (seconds, "250us", 0.00025),
        (size, "10MB", 10_000_000),
        (size, "1GiB", 2**30),
        (size, "512 kb", 512_000),
        (size, "100B", 100),
    ],
)
def test_reads_numbers_with_units(read, text, value):
    assert read(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("read", "text", "told"),
    [
        (share, "a lot", "a share such as 1%"),
        (share, "150%", "more than all of it"),
        (share, "-1%", "a share"),
        (seconds, "5 MB", "a time such as 5ms"),
        (seconds, "5", "a time such as 5ms"),
        (size, "10", "a size such as 10MB"),
        (size, "1e400MB", "more than a number holds"),
        (size, "10 parsecs", "a size such as 10MB"),
    ],
)
def test_refuses_everything_else(read, text, told):
    with pytest.raises(UsageError, match=told):
        read(text)
