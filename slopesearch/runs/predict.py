"""predict_images(): the digit in each image file, by the model of a finished run folder."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from slopesearch.nets.models import build_model
from slopesearch.nets.plain import as_torch
from slopesearch.runs.export import read_config_file
from slopesearch.runs.train import CONFIG, WEIGHTS
from slopesearch.training.data import DATASETS, SIDE, DataSet
from slopesearch.wording import RequestError

# Pillow knows more formats, but starts Ghostscript for EPS.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
MOST_PIXELS = 20_000_000  # each takes up to 40 bytes of memory; without a limit a PNG of 0.8 MB took 3.8 GB

LIGHT = 140  # of 255: above it a pixel is light, below 255 - LIGHT dark
MOST_OFF = 4  # of 255 from MNIST's background; a 4 drawn on paper of 245, 10 off, was taken for a 2


@dataclass(frozen=True)
class Prediction:
    """An image file with the digit in it and its probability (0 to 1), or with the reason it cannot be read.

    `other_way`: it looks like ink on paper and was read as white on black, or the reverse. `odd`: what Pillow
    warned of, such as metadata that contradict each other.
    """

    path: Path
    digit: int | None = None
    probability: float | None = None
    error: str | None = None
    other_way: bool = False
    odd: str | None = None


def load_run(run: Path) -> tuple[nn.Sequential, DataSet]:
    """The trained model of a run folder, on the CPU, and its data set.

    Raises RequestError where the folder holds no finished run, or its files do not belong together.
    """
    if not (run / WEIGHTS).is_file():
        raise RequestError(
            f"'{run}' holds no {WEIGHTS}; name a folder that `python -m slopesearch train` has finished"
        )
    config = read_config_file(run / CONFIG).config
    model = as_torch(build_model(config))
    try:
        model.load_state_dict(load_file(run / WEIGHTS))
    except (SafetensorError, RuntimeError) as error:
        raise RequestError(
            f"'{run / WEIGHTS}' is damaged or not of this run's {CONFIG} ({str(error).splitlines()[0]}); "
            "train it again"
        ) from None
    return model.eval(), DATASETS[config.dataset]


@torch.no_grad()
def predict_images(run: Path, paths: list[Path], invert: bool = False) -> list[Prediction]:
    """The digit in each image file, white on black as in MNIST; `invert` is for ink on paper.

    An image that cannot be read has an `error` instead of a digit. Raises RequestError where the run folder
    cannot be used, see `load_run`.
    """
    model, data = load_run(run)
    predictions = []
    for path in paths:
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("ignore")
                for kind in (UserWarning, RuntimeWarning):  # not what Pillow tells those who program
                    warnings.simplefilter("always", kind)
                grey = read_grey(path, invert)
            pixels = as_pixels(grey, invert)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            predictions.append(Prediction(path, error=_reason(error)))
            continue
        probabilities = model((pixels[None, None] - data.mean) / data.std)[0].softmax(0)
        digit = int(probabilities.argmax())
        other_way = is_on(grey, paper=not invert)
        odd = " ".join(str(caught[0].message).split()) if caught else None
        odd = odd or (None if other_way else _off_background(grey, invert))
        predictions.append(Prediction(path, digit, float(probabilities[digit]), other_way=other_way, odd=odd))
    return predictions


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it is no image in a known format; use {', '.join(FORMATS)}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_grey(path: Path, invert: bool) -> Image.Image:
    """An image file in mode F, values 0 to 255, as it is.

    The camera's rotation is applied, transparent parts become background and colours grey. Raises OSError,
    ValueError, SyntaxError or Pillow's DecompressionBombError where it cannot be read, has more than
    MOST_PIXELS or is no regular file, which a pipe or a device is not.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is no file but a folder, a pipe or a device")
    with Image.open(path, formats=FORMATS) as file:  # which reads the header alone
        if file.width * file.height > MOST_PIXELS:
            size = f"it has {file.width:,} x {file.height:,} pixels"
            raise ValueError(f"{size}; at most {MOST_PIXELS:,} are decoded, so make it smaller first")
        image = ImageOps.exif_transpose(file)
        return _grey(image, background=255 if invert else 0)


def is_on(grey: Image.Image, paper: bool) -> bool:
    """Whether most of an image, and of its border, is as light as paper, or else as dark as a blackboard.

    Strokes cover little of a picture and seldom follow its border. What is neither is not judged.
    """
    typical = _border(grey), np.median(np.array(grey))
    return bool(min(typical) > LIGHT if paper else max(typical) < 255 - LIGHT)


def _border(grey: Image.Image) -> float:
    """The median along the border of an image."""
    values = np.array(grey)
    return float(np.median(np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])))


def _off_background(grey: Image.Image, invert: bool) -> str | None:
    """A sentence on a background that MNIST's pictures do not have; None on one that they do."""
    off = abs(_border(grey) - (255 if invert else 0))
    if off <= MOST_OFF:
        return None
    colour = "white" if invert else "black"
    return f"its background is {off / 255:.0%} off {colour}, so the digit may be misread; make it {colour}"


def as_pixels(grey: Image.Image, invert: bool) -> Tensor:
    """An image in mode F as (28, 28) float32 in [0, 1], bright on dark.

    It keeps its proportions when it is resized; background makes it square. Raises ValueError where a pixel
    is not finite.
    """
    small = ImageOps.pad(grey, (SIDE, SIDE), Image.Resampling.BICUBIC, color=255 if invert else 0)
    pixels = torch.from_numpy(np.array(small))
    if not pixels.isfinite().all():
        raise ValueError("some of its pixels are no finite numbers")
    pixels = pixels.clamp(0, 255) / 255
    return 1 - pixels if invert else pixels


def _grey(image: Image.Image, background: int) -> Image.Image:
    """An image of any mode (1, 8 or 16 bits, palette, colours, transparency) in mode F, values 0 to 255."""
    if image.mode.startswith("I"):  # 16 bits a pixel
        return Image.fromarray(np.array(image).astype(np.float32) / 257)
    if image.mode == "F":
        values = np.array(image)
        return Image.fromarray(values * 255) if values.max() <= 1 else image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (background,) * 3 + (255,)), image)
    return image.convert("L").convert("F")
