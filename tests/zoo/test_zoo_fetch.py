from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from zoo_stand_ins import FILES, Registry, described, tarball, wheel

from onnxopt_zoo.errors import FetchError, IntegrityError
from onnxopt_zoo.fetch import download, run_tool
from onnxopt_zoo.manifest import Package


def _failing(stderr: str) -> Registry:
    class Failing(Registry):
        def __call__(self, command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
            return subprocess.CompletedProcess(command, 1, "", stderr)

    return Failing({})


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("pypi", [sys.executable, "-m", "pip", "--no-deps", "--only-binary=:all:", "tiny==1.0"]),
        ("pypi-source", ["env", sys.executable, "--no-deps", "--no-build-isolation", "--require-hashes"]),
        ("npm", ["npm", "pack", "--ignore-scripts", "tiny@1.0"]),
        ("debian", ["apt-get", "download", "tiny=1.0"]),
    ],
)
def test_each_kind_asks_its_own_tool(
    package: Package, registry: Registry, tmp_path: Path, kind: str, expected: list[str]
) -> None:
    download(package.model_copy(update={"kind": kind}), tmp_path / "archive", registry)
    (command,) = registry.asked
    assert [word for word in command if word in expected] == expected


def test_the_archive_lies_under_its_name_only(package: Package, registry: Registry, tmp_path: Path) -> None:
    target = tmp_path / "cache" / package.archive
    target.parent.mkdir()
    download(package, target, registry)
    assert target.read_bytes() == wheel(FILES)
    assert list(target.parent.iterdir()) == [target]


def test_another_hash_is_an_error_and_nothing_is_left(package: Package, tmp_path: Path) -> None:
    target = tmp_path / "cache" / package.archive
    target.parent.mkdir()
    with pytest.raises(IntegrityError) as raised:
        download(package, target, Registry({package.archive: b"something else"}))
    assert package.sha256 in raised.value.what
    assert "tiny 1.0" in raised.value.what
    assert raised.value.hint
    assert not list(target.parent.iterdir())


@pytest.mark.parametrize(
    ("stderr", "hint"),
    [
        ("ERROR: No matching distribution found for tiny==1.0", "no longer has this version"),
        ("E: Unable to locate package tiny", "apt-get update"),
        ("E: Version '1.0' for 'tiny' was not found", "another version"),
        ("python: No module named pip", "ensurepip"),
        ("npm ERR! network timeout", "check the network"),
    ],
)
def test_a_failure_says_why_and_what_to_do(package: Package, tmp_path: Path, stderr: str, hint: str) -> None:
    with pytest.raises(FetchError) as raised:
        download(package, tmp_path / "archive", _failing(f"warning: old\n{stderr}\n"))
    assert stderr in raised.value.what
    assert hint in str(raised.value.hint)
    assert "pip" in str(raised.value.where)


def test_a_tool_that_brings_nothing_is_an_error(package: Package, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"wrote no tiny-1\.0"):
        download(package, tmp_path / "archive", Registry({}))


def test_a_missing_tool_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="no-such-tool is not installed"):
        run_tool(["no-such-tool", "download"], tmp_path)


_SETUP = b"""
from pathlib import Path
Path(__file__).with_name("ran").touch()
raise SystemExit("setup.py was run")
"""


def _use_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make pip look for packages in a folder alone."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


@pytest.mark.parametrize("backend", [False, True], ids=["setup.py", "pyproject.toml"])
def test_pip_fetches_a_source_package_without_running_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: bool
) -> None:
    files = {"tiny-1.0/setup.py": _SETUP, "tiny-1.0/PKG-INFO": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"}
    if backend:
        files["tiny-1.0/pyproject.toml"] = b'[build-system]\nrequires = []\nbuild-backend = "setuptools.build_meta"\n'
    archive = tarball(files)
    package = described(archive, "tiny-1.0.tar.gz", tmp_path, kind="pypi-source")
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / package.archive).write_bytes(archive)
    _use_folder(monkeypatch, tmp_path / "index")
    download(package, tmp_path / package.archive)
    assert (tmp_path / package.archive).read_bytes() == archive


def test_pip_checks_a_source_package_before_it_looks_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tarball({"tiny-1.0/setup.py": _SETUP})
    package = described(archive, "tiny-1.0.tar.gz", tmp_path, kind="pypi-source", sha256="0" * 64)
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / package.archive).write_bytes(archive)
    _use_folder(monkeypatch, tmp_path / "index")
    with pytest.raises(FetchError):
        download(package, tmp_path / package.archive)
    assert not (tmp_path / package.archive).exists()


def test_pip_fetches_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described_by = {
        "tiny-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\nRequires-Python: <3\n",
        "tiny-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    archive = wheel({**FILES, **described_by})
    package = described(archive, "tiny-1.0-py3-none-any.whl", tmp_path)
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / package.archive).write_bytes(archive)
    _use_folder(monkeypatch, tmp_path / "index")
    download(package, tmp_path / package.archive)
    assert (tmp_path / package.archive).read_bytes() == archive
