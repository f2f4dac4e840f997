"""A crash, a hang or a memory hog costs one child and is told as what it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import pytest

from onnxopt.compile.engine import make_backend
from onnxopt.compile.fake import Fake
from onnxopt.compile.isolation import Child, IsolatedEngine, Limits, PersistentChild, run_isolated
from onnxopt.errors import EngineCrashError, EngineError, EngineTimeoutError, UsageError
from onnxopt.targets.target import local_target
from tests.signals import listen_to_ctrl_c

LIMITS = Limits(seconds=60.0, memory_bytes=2 << 30)
FEEDS = {"x": np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)}
FAILURES = {
    "raise": (EngineError, "^the fake runtime was told to fail$"),
    "crash": (EngineCrashError, "^the runtime's process died: SIGABRT"),
    "hang": (EngineTimeoutError, r"^the runtime did not finish '(compile_model|run)' within 2 s"),
    "memory": (EngineError, "^out of memory\n  hint: raise the memory limit"),
}

_PARENT = """
import sys, time
from pathlib import Path
import numpy as np
from onnxopt.compile.fake import Fake
from onnxopt.compile.isolation import IsolatedEngine, Limits
from onnxopt.targets.target import local_target

engine = IsolatedEngine(Fake(fails=sys.argv[2], fails_at="run"), Path(sys.argv[1]), local_target(), Limits(60))
feeds = {"x": np.ones((2, 8), np.float32)}
try:
    print(engine._child._process.pid, flush=True)
    if sys.argv[2] == "hang":
        engine.run(feeds)
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted,", engine.run(feeds)["y"].shape, flush=True)
    engine.close()
"""


def _fails(how: str, at: Literal["compile", "run"], path: Path) -> None:
    limits = Limits(2.0, LIMITS.memory_bytes) if how == "hang" else LIMITS
    with IsolatedEngine(make_backend("fake", {"fails": how, "fails_at": at}), path, local_target(), limits) as engine:
        engine.run(FEEDS)


@pytest.mark.parametrize("at", ["compile", "run"])
@pytest.mark.parametrize("how", FAILURES)
def test_each_failure_is_told_and_another_engine_starts(
    how: str, at: Literal["compile", "run"], mlp_file: Path
) -> None:
    error, text = FAILURES[how]
    with pytest.raises(error, match=text) as caught:
        _fails(how, at, mlp_file)
    assert type(caught.value) is error
    with IsolatedEngine(Fake(), mlp_file, local_target(), LIMITS) as engine:
        assert engine.run(FEEDS)["y"].sum() == pytest.approx(2.0)


def test_a_child_that_raised_goes_on(mlp_file: Path) -> None:
    with IsolatedEngine(Fake(), mlp_file, local_target()) as engine:
        with pytest.raises(EngineError):
            engine.run({})
        assert engine.run(FEEDS)["y"].shape == (2, 4)


def test_whatever_a_child_raises_arrives_with_its_kind() -> None:
    with pytest.raises(EngineError, match=r"^ZeroDivisionError: "):
        run_isolated("operator:truediv", 1, 0)
    with pytest.raises(UsageError, match="there is no backend 'nothing'"):
        run_isolated("onnxopt.compile.engine:make_backend", "nothing")


def test_a_process_that_ends_itself_tells_code_and_last_words() -> None:
    with pytest.raises(EngineCrashError, match=r"died: exit code 3$"):
        run_isolated("os:_exit", 3)
    with Child() as child:
        child.function("os:write", 2, b"first line\nterminate called: bad_alloc\n")
        with pytest.raises(EngineCrashError, match=r"died: SIGABRT \(terminate called: bad_alloc\)"):
            child.function("os:abort")


def test_a_killed_child_may_have_been_out_of_memory() -> None:
    with Child() as child:
        os.kill(child.function("os:getpid"), signal.SIGKILL)
        with pytest.raises(EngineCrashError, match="died: SIGKILL") as caught:
            child.function("os:getpid")
        assert caught.value.hint == "the system may have run out of memory"


def test_large_feeds_and_results_travel_whole() -> None:
    array = np.random.default_rng(0).standard_normal(3_000_000)
    assert np.array_equal(run_isolated("numpy:negative", array), -array)


def test_what_a_child_prints_does_not_disturb_the_answers(capfd: pytest.CaptureFixture[str]) -> None:
    with Child() as child:
        child.function("builtins:print", "noise")
        child.function("os:write", 1, b"more noise")
        assert child.function("operator:add", 1, 2) == 3
    assert capfd.readouterr() == ("", "")


def test_a_persistent_child_is_replaced_when_it_dies() -> None:
    with closing(PersistentChild(Limits(2.0))) as child:
        first = child.function("os:getpid")
        assert child.function("os:getpid") == first
        with pytest.raises(EngineCrashError):
            child.function("os:abort")
        second = child.function("os:getpid")
        with pytest.raises(EngineTimeoutError, match="did not finish 'sleep' within 2 s"):
            child.function("time:sleep", 60)
        third = child.function("os:getpid")
        assert len({first, second, third}) == 3
        assert not psutil.pid_exists(first)
        assert not psutil.pid_exists(second)
    assert not psutil.pid_exists(third)


@pytest.fixture(params=["never", "hang"], ids=["idle", "busy"])
def parent(request: pytest.FixtureRequest, mlp_file: Path) -> Iterator[subprocess.Popen[str]]:
    """A process with an engine in a child, in a process group of its own, as a shell starts it."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(mlp_file), request.param],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=listen_to_ctrl_c,
    )
    yield process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_child_imports_nothing_from_the_current_folder(mlp_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that somebody sent may lie beside a file called numpy.py."""
    (mlp_file.parent / "numpy.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(mlp_file.parent)
    with IsolatedEngine(Fake(), mlp_file, local_target(), LIMITS) as engine:
        assert engine.run({"x": np.ones((2, 8), np.float32)})["y"].shape == (2, 4)


def test_an_engine_whose_process_died_is_not_alive(mlp_file: Path) -> None:
    with IsolatedEngine(Fake(), mlp_file, local_target(), LIMITS) as engine:
        assert engine.alive
        with pytest.raises(EngineCrashError):
            engine._child.function("os:abort")
        assert not engine.alive


def test_a_killed_parent_takes_its_child_along(parent: subprocess.Popen[str]) -> None:
    child = _child_of(parent)
    assert child.is_running()
    parent.kill()
    parent.wait()
    end = time.monotonic() + 20
    while _alive(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _alive(child)


@pytest.mark.parametrize("parent", ["never"], indirect=True, ids=["idle"])
def test_ctrl_c_leaves_the_child_to_its_parent(parent: subprocess.Popen[str]) -> None:
    child = _child_of(parent)
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "interrupted, (2, 4)\n"
    assert parent.wait(20) == 0
    assert not _alive(child)


def _child_of(parent: subprocess.Popen[str]) -> psutil.Process:
    assert parent.stdout is not None
    return psutil.Process(int(parent.stdout.readline()))


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
