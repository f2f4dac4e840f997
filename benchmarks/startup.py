"""How long ``onnxopt --help`` takes as a whole process: median of ten."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time


def main() -> None:
    """Print the times and their median."""
    program = shutil.which("onnxopt")
    if program is None:
        raise SystemExit("onnxopt is not on the PATH: pip install it first")
    seconds = [_once(program) for _ in range(11)][1:]
    print("seconds:", " ".join(f"{second:.3f}" for second in seconds))
    print(f"median of {len(seconds)}: {statistics.median(seconds):.3f} s")


def _once(program: str) -> float:
    start = time.perf_counter()
    subprocess.run([program, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
