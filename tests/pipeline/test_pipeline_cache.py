import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from onnxopt.errors import OutputError
from onnxopt.pipeline.cache import Cache

PARTS = {"step": "pass", "input": "abc", "options": {"a": 1}}


def make_hello(folder: Path) -> str:
    (folder / "file.txt").write_text("hello")
    return "value"


def test_stores_and_finds_by_parts(cache):
    assert cache.look_up(PARTS, "label").entry is None
    stored = cache.store(PARTS, "label", make_hello)
    found = cache.look_up({"options": {"a": 1}, "input": "abc", "step": "pass"}, "label")
    assert found.reason == "cached"
    assert found.entry.value == "value"
    assert (found.entry.folder / "file.txt").read_text() == "hello"
    assert found.entry.folder == stored.folder


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"input": "abd"}, "changed: input"),
        ({"options": {"a": 2}}, "changed: options"),
        ({"input": "x", "options": {}}, "changed: input, options"),
        ({"libraries": {"onnx": "9"}}, "changed: libraries"),
    ],
)
def test_a_miss_says_what_changed(cache, changed, reason):
    cache.store(PARTS, "label", make_hello)
    assert cache.look_up({**PARTS, **changed}, "label").reason == reason


def test_a_step_never_seen_is_told_apart(cache):
    cache.store(PARTS, "label", make_hello)
    assert cache.look_up({**PARTS, "input": "x"}, "another label").reason == "never run before"


def test_a_damaged_file_is_never_served(cache):
    entry = cache.store(PARTS, "label", make_hello)
    (entry.folder / "file.txt").write_text("hellO")
    found = cache.look_up(PARTS, "label")
    assert found.entry is None
    assert found.reason == "the cached file.txt was damaged"
    assert cache.look_up(PARTS, "label").reason == "its cached result is gone"


def test_a_damaged_description_is_a_miss(cache):
    entry = cache.store(PARTS, "label", make_hello)
    (entry.folder / "entry.json").write_text("{")
    assert cache.look_up(PARTS, "label").entry is None


def test_failures_are_not_stored(cache):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half a result")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        cache.store(PARTS, "label", fail)
    assert cache.look_up(PARTS, "label").entry is None
    assert list(cache.root.rglob("half")) == []


def test_an_error_a_step_reads_into_is_not_blamed_on_the_cache(cache):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        cache.store(PARTS, "label", lambda _: Path("/nowhere/at/all").read_text())


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        Cache(tmp_path / "file").store(PARTS, "label", make_hello)


def test_cleaning_removes_what_is_damaged_or_abandoned(cache):
    entry = cache.store(PARTS, "label", make_hello)
    good = cache.store({**PARTS, "input": "x"}, "label", make_hello)
    (entry.folder / "file.txt").write_text("other")
    left = cache.root / "v1" / "making-left"
    left.mkdir()
    os.utime(left, (time.time() - 2 * 86400,) * 2)
    fresh = cache.root / "v1" / "making-now"
    fresh.mkdir()
    assert cache.clean() == 2
    assert not entry.folder.exists()
    assert not left.exists()
    assert good.folder.exists()
    assert fresh.exists()


def test_clearing_empties_it(cache):
    cache.store(PARTS, "label", make_hello)
    cache.clear()
    assert list(cache.entries()) == []


def store_many(root: str, start: "multiprocessing.synchronize.Event") -> None:
    def slow(folder: Path) -> str:
        (folder / "file.txt").write_text("hello")
        time.sleep(0.01)
        return "value"

    start.wait()
    for index in range(20):
        cache = Cache(Path(root))
        cache.look_up({"n": index}, "label")
        assert cache.store({"n": index}, "label", slow).value == "value"


def test_two_processes_do_not_hurt_each_other(cache):
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    workers = [context.Process(target=store_many, args=(str(cache.root), start)) for _ in range(3)]
    for worker in workers:
        worker.start()
    start.set()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(list(cache.entries())) == 20
    assert cache.damaged() == []
    assert list(cache.root.rglob("making-*")) == []
    assert all(json.loads(file.read_text()) for file in cache.root.rglob("last/*.json"))


@pytest.mark.parametrize("content", [b"", b"null", b"{}", b"[1]"])
def test_an_entry_that_cannot_be_read_is_made_again(cache, content):
    entry = cache.store({"a": 1}, "step", lambda folder: 1)
    (entry.folder / "entry.json").write_bytes(content)
    assert cache.look_up({"a": 1}, "step").entry is None
    assert cache.damaged() == [entry.folder]
    assert cache.store({"a": 1}, "step", lambda folder: 2).value == 2
    assert cache.look_up({"a": 1}, "step").entry.value == 2
    assert cache.damaged() == []


def test_clearing_leaves_what_is_not_the_caches(cache):
    cache.store({"a": 1}, "step", lambda folder: 1)
    (cache.root / "thesis.txt").write_text("mine")
    (cache.root / "zoo").mkdir()
    cache.clear()
    assert sorted(path.name for path in cache.root.iterdir()) == ["thesis.txt", "zoo"]
    assert cache.look_up({"a": 1}, "step").entry is None
