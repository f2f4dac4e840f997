"""A model timed against itself: how often the comparison claims a difference where there is none.

Prints for each trial the interval over three launches of fresh processes, which is what claims rest on, and the
median of each launch alone, which shows what memory layout does to a whole process.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import onnxopt_zoo
from onnxopt.compile.engine import make_backend
from onnxopt.compile.isolation import IsolatedEngine
from onnxopt.data.files import Files
from onnxopt.ir.read import read_model
from onnxopt.pipeline.effort import NORMAL
from onnxopt.profile.launches import compare_launches
from onnxopt.profile.statistics import Verdict, speedup
from onnxopt.targets.target import local_target


def main() -> None:
    """Run the trials and count false claims."""
    options = _options()
    wrong = wrong_alone = 0
    for trial in range(options.trials):
        speed, alone = _trial(options)
        wrong += speed.verdict is not Verdict.SAME
        wrong_alone += sum(one.verdict is not Verdict.SAME for one in alone)
        launches = " ".join(f"{one.ratio:.3f}" for one in alone)
        print(f"{trial + 1}: {speed}; launches {launches}", flush=True)
    print(f"false claims over {NORMAL.launches} launches: {wrong} of {options.trials}")
    print(f"false claims of one launch alone: {wrong_alone} of {options.trials * NORMAL.launches}")


def _trial(options: argparse.Namespace):  # type: ignore[no-untyped-def]
    files = onnxopt_zoo.get(options.model, options.zoo / options.model, cache=options.downloads)
    samples = Files(files=str(files.evaluation)).open(read_model(files.model), Path())
    feeds = [samples.read(index).feeds for index in range(4)]
    engine = lambda: IsolatedEngine(make_backend("ort"), files.model, local_target())  # noqa: E731
    found = compare_launches(engine, engine, feeds, NORMAL.confirming, NORMAL.launches)
    return found.speedup, [speedup(rounds) for rounds in found.speedup.launches]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="magika", help="a model of the zoo")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--zoo", type=Path, default=Path("build/zoo"))
    parser.add_argument("--downloads", type=Path, default=Path.home() / ".cache/onnxopt/zoo")
    return parser.parse_args()


if __name__ == "__main__":
    main()
