"""Image files of every kind become digits; what cannot be read is said."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFile

from slopesearch.runs.export import ConfigFile, Origin
from slopesearch.runs.predict import _off_background, as_pixels, is_on, load_run, predict_images, read_grey
from slopesearch.runs.train import for_training, open_run, train_run
from slopesearch.training.data import DATASETS, load
from slopesearch.wording import RequestError
from tests.conftest import InProcess, make_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run that has been trained on the digits."""
    path = tmp_path_factory.mktemp("runs") / "x"
    origin = Origin(study="digits-mlp", objective="val_accuracy")
    exported = ConfigFile(config=make_config(width=128, lr=3e-3), origin=origin, versions={})
    exported = for_training(exported, 10, None, None, hold_out=True)
    with open_run(path, exported):
        train_run(exported, path, Path("unused"), torch.device("cpu"), lambda steps: None, lambda row: None)
    return path


def zero() -> np.ndarray:
    """A validation digit that is easy: uint8 (28, 28), white on black."""
    data = load("digits", Path("unused"), 0, 1000, 397)
    index = int((data.val_labels == 0).nonzero()[0])
    pixels: np.ndarray = ((data.val_images[index, 0] * 0.3247 + 0.305) * 255).round().clamp(0, 255).numpy()
    return pixels.astype(np.uint8)


def read_image(path: Path, invert: bool) -> torch.Tensor:
    return as_pixels(read_grey(path, invert), invert)


def kinds(folder: Path) -> dict[str, Path]:
    """The same digit in many files."""
    grey = Image.fromarray(zero())
    large = grey.resize((280, 280), Image.Resampling.BICUBIC)
    narrow = large.crop((40, 0, 240, 280))
    alpha = Image.new("RGBA", (280, 280), (255, 255, 255, 0))  # white ink; what is not ink is transparent
    alpha.putalpha(large)
    sixteen = Image.fromarray(np.array(large).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6  # held sideways: to be turned by 90 degrees clockwise
    files = {
        "grey.png": grey,
        "large.png": large,
        "narrow.png": narrow,
        "alpha.png": alpha,
        "sixteen.png": sixteen,
        "sixteen.tiff": sixteen,
        "colour.jpg": large.convert("RGB"),
        "palette.gif": large.convert("P"),
        "bits.bmp": large.point(lambda value: 255 * (value > 100)).convert("1"),
        "small.webp": grey.convert("RGB"),
        "cmyk.jpg": large.convert("RGB").convert("CMYK"),
    }
    for name, image in files.items():
        image.save(folder / name)
    large.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=exif)
    return {path.name: path for path in folder.iterdir()}


def test_every_kind_of_file_holds_the_same_digit(run: Path, tmp_path: Path) -> None:
    files = kinds(tmp_path)
    assert len(files) == 12
    for row in predict_images(run, list(files.values())):
        assert (row.digit, row.error) == (0, None), row
        assert row.probability is not None
        assert row.probability > 0.5


def test_pixels_come_as_they_are_in_the_data_set(tmp_path: Path) -> None:
    Image.fromarray(zero()).save(tmp_path / "x.png")
    assert torch.equal(read_image(tmp_path / "x.png", invert=False) * 255, torch.from_numpy(zero()).float())


@pytest.mark.parametrize("largest", [1, 255])
def test_a_float_image_is_in_0_to_1_or_0_to_255(tmp_path: Path, largest: int) -> None:
    expected = 0.9 * zero().astype(np.float32) / 255  # the brightest is not the largest that there is
    Image.fromarray(expected * largest).save(tmp_path / "x.tiff")
    assert torch.allclose(read_image(tmp_path / "x.tiff", invert=False), torch.from_numpy(expected))


def test_ink_on_paper_is_inverted_and_padded_with_paper(tmp_path: Path) -> None:
    files = kinds(tmp_path)
    paper = Image.fromarray(255 - np.array(Image.open(files["large.png"])))
    paper.crop((70, 0, 210, 280)).save(tmp_path / "paper.png")
    ink = Image.new("RGBA", (280, 280), (0, 0, 0, 0))
    ink.putalpha(Image.open(files["large.png"]))
    ink.save(tmp_path / "ink.png")
    for name in ("paper.png", "ink.png"):
        pixels = read_image(tmp_path / name, invert=True)
        assert pixels[:, 0].max() < 1e-5
        expected = torch.from_numpy(zero()).float() / 255
        assert (pixels[:, 8:20] - expected[:, 8:20]).abs().mean() < 0.05


def test_what_cannot_be_read_is_said_and_the_rest_is_read(
    run: Path, tmp_path: Path, command_line: InProcess
) -> None:
    files = kinds(tmp_path)
    (tmp_path / "half.png").write_bytes(files["large.png"].read_bytes()[:300])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "x.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n%%EndComments\n")
    Image.new("1", (14_000, 14_000)).save(tmp_path / "bomb.png")
    Image.new("1", (5_000, 4_001)).save(tmp_path / "large.tiff")
    os.mkfifo(tmp_path / "pipe.png")
    spoiled = zero().astype(np.float32)
    spoiled[3, 3] = np.nan
    Image.fromarray(spoiled).save(tmp_path / "nan.tiff")
    unreadable = ["half.png", "text.png", "x.eps", "bomb.png", "large.tiff", "pipe.png", "nan.tiff"]
    names = ["grey.png", *unreadable, "nowhere.png", os.devnull, "."]
    done = command_line("predict", str(run), *names)
    assert done.code == 2
    assert done.out.startswith("grey.png: 0  0.9")
    assert len(done.out.splitlines()) == 1
    assert done.err.count("cannot be read: ") == len(done.err.splitlines()) == 10
    for sentence in (
        "error: 'half.png' cannot be read: ",
        "error: 'text.png' cannot be read: it is no image in a known format; use PNG,",
        "error: 'x.eps' cannot be read: it is no image in a known format",
        "error: 'bomb.png' cannot be read: Image size (196000000 pixels) exceeds limit",
        "error: 'large.tiff' cannot be read: it has 5,000 x 4,001 pixels; at most 20,000,000 are decoded",
        "error: 'pipe.png' cannot be read: it is no file but a folder, a pipe or a device",
        f"error: '{os.devnull}' cannot be read: it is no file but a folder, a pipe or a device",
        "error: 'nan.tiff' cannot be read: some of its pixels are no finite numbers",
        "error: 'nowhere.png' cannot be read: No such file or directory",
    ):
        assert sentence in done.err
    assert "Traceback" not in done.err
    files["grey.png"].rename(tmp_path / "\x1b[31m.png")
    done = command_line("predict", str(run), "\x1b[31m.png", "\x1b[32m.png")
    assert done.out.startswith(r"\x1b[31m.png: 0")
    assert r"error: '\x1b[32m.png' cannot" in done.err


def test_an_image_that_is_too_large_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.png"
    Image.new("1", (5_000, 4_001)).save(path)

    def decoded(*arguments: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    with pytest.raises(ValueError, match="at most 20,000,000 are decoded"):
        read_image(path, invert=False)


def test_an_image_of_odd_metadata_is_read_with_a_sentence(
    run: Path, tmp_path: Path, command_line: InProcess
) -> None:
    """A TIFF whose width is given twice, of which Pillow warns."""
    path = tmp_path / "x.tiff"
    Image.fromarray(zero()).save(path)
    content = bytearray(path.read_bytes())
    (directory,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, directory)
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, _, _, value = struct.unpack_from("<HHII", content, entry)
        if tag == 256:
            struct.pack_into("<HHIHH", content, entry, tag, 3, 2, value, value)
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="tag 256 had too many entries"):
        Image.open(path).load()
    done = command_line("predict", str(run), "x.tiff")
    assert done.out.startswith("x.tiff: 0  0.9")
    warned = "Metadata Warning, tag 256 had too many entries: 2, expected 1"
    assert (done.code, done.err) == (0, f"warning: 'x.tiff' was read, but is odd: {warned}\n")


def test_a_run_that_is_not_finished_or_damaged_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"holds no weights\.safetensors; name a folder"):
        load_run(tmp_path)
    (tmp_path / "config.toml").write_bytes((run / "config.toml").read_bytes())
    for content in (b"", b"\xff" * 100, b"\x80\x02cos\nsystem\n."):
        (tmp_path / "weights.safetensors").write_bytes(content)
        with pytest.raises(RequestError, match="is damaged or not of this run's"):
            load_run(tmp_path)
    text = (run / "config.toml").read_text().replace("width = 128", "width = 64")
    (tmp_path / "config.toml").write_text(text)
    (tmp_path / "weights.safetensors").write_bytes((run / "weights.safetensors").read_bytes())
    with pytest.raises(RequestError, match="is damaged or not of this run's"):
        load_run(tmp_path)


def drawn(folder: Path, ink: int, paper: int, size: tuple[int, int] = (300, 400)) -> Path:
    """A one with a foot, drawn with a broad pen, and the shadow of a hand over the paper."""
    image = Image.new("L", size, paper)
    pen = ImageDraw.Draw(image)
    pen.line([(size[0] // 2, 40), (size[0] // 2, size[1] - 40)], fill=ink, width=30)
    pen.line([(size[0] // 3, size[1] - 40), (2 * size[0] // 3, size[1] - 40)], fill=ink, width=30)
    path = folder / f"{ink}-{paper}.png"
    image.save(path)
    return path


def test_images_that_look_the_other_way_round_are_told_of_with_what_to_type(
    run: Path, tmp_path: Path, command_line: InProcess
) -> None:
    ink, chalk, faint = drawn(tmp_path, 30, 200), drawn(tmp_path, 255, 0), drawn(tmp_path, 110, 130)
    white = drawn(tmp_path, 30, 251)
    read, odd = "and the images were read as", "was read, but is odd: its background is"
    for words, told in (
        ((chalk,), ""),
        ((white, "--invert"), ""),
        ((ink, "--invert"), f"'{ink}' {odd} 22% off white, so the digit may be misread; make it white"),
        ((faint,), f"'{faint}' {odd} 51% off black, so the digit may be misread; make it black"),
        ((faint, "--invert"), f"'{faint}' {odd} 49% off white, so the digit may be misread; make it white"),
        ((ink,), f"'{ink}' looks like ink on paper, {read} white on black; for ink on paper add --invert"),
        (
            (ink, chalk, ink),
            f"2 of 3 images, '{ink}' first, look like ink on paper, {read} white on black; for ink on paper "
            "add --invert",
        ),
        (
            (chalk, "--invert"),
            f"'{chalk}' looks like white on black, {read} ink on paper; for white on black leave "
            "--invert out",
        ),
    ):
        done = command_line("predict", str(run), *map(str, words))
        assert (done.code, done.err) == (0, f"warning: {told}\n" if told else "")
        assert len(done.out.splitlines()) == len([word for word in words if isinstance(word, Path)])


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_no_image_of_a_data_set_is_taken_for_its_opposite(name: str, request: pytest.FixtureRequest) -> None:
    folder = Path("unused") if name == "digits" else request.getfixturevalue("mnist_folder")
    images, _ = DATASETS[name].read(folder, True)
    seen = 0
    for pixels in images[:2000].float().numpy():
        white_on_black, ink_on_paper = Image.fromarray(pixels), Image.fromarray(255 - pixels)
        assert not is_on(white_on_black, paper=True)
        assert not is_on(ink_on_paper, paper=False)
        assert _off_background(white_on_black, False) is None
        assert _off_background(ink_on_paper, True) is None
        seen += is_on(ink_on_paper, paper=True) and is_on(white_on_black, paper=False)
    assert seen > 0.95 * len(images[:2000])
