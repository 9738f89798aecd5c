"""Reading an INPUT of the command line: a text, a file of text, an image, a sound."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

from regard.errors import UserError

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"})
MAX_INPUT_BYTES = 256 << 20


def read_input(given: str, stdin: Any = None) -> Any:
    """What an INPUT of the command line names: a text, @file, - (standard input), an image or a wav file.

    Returns a str, a PIL image or (samples float32, rate). Raises UserError for files that cannot be read.
    """
    if given == "-":
        try:
            return stdin.read()
        except UnicodeDecodeError:
            raise UserError("standard input is not UTF-8 text; convert it first") from None
    path = Path(given.removeprefix("@"))
    suffix = path.suffix.lower()
    if not given.startswith("@") and suffix not in IMAGES | {".wav"}:
        return given
    try:
        if path.stat().st_size > MAX_INPUT_BYTES:
            raise UserError(f"{path} is larger than {MAX_INPUT_BYTES >> 20} MiB; give a smaller file")
        if suffix in IMAGES:
            return _image(path)
        return _sound(path) if suffix == ".wav" else path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"there is no file {path}; give a text, @file, -, an image or a wav file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; convert it first") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def _image(path: Path) -> Any:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise UserError("reading an image needs pillow: pip install 'regard[hf]'") from None
    try:
        with Image.open(path) as image:
            return _opaque(image).convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError):
        raise UserError(f"{path} is not an image that can be read; give a PNG or JPEG") from None


def _opaque(image: Any) -> Any:
    """A picture with transparency on white, as pages show it."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    seen = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)


def _sound(path: Path) -> tuple[Any, int]:
    import numpy

    try:
        with wave.open(str(path)) as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        reason = str(error) or "cut short"
        raise UserError(f"{path} is not a PCM wav file ({reason}); convert it to 16-bit PCM") from None
    if width not in (2, 4):
        raise UserError(f"{path} has {8 * width}-bit samples; convert it to 16-bit PCM")
    raw = raw[: len(raw) - len(raw) % (width * channels)]
    if not raw:
        raise UserError(f"{path} holds no sound; give a longer one")
    samples = numpy.frombuffer(raw, dtype=numpy.int16 if width == 2 else numpy.int32).astype(numpy.float32)
    return samples.reshape(-1, channels).mean(1) / float(1 << (8 * width - 1)), rate


def is_file(path: str | Path) -> bool:
    """Whether a path names a file; a text too long to be a path does not."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_media(given: str) -> bool:
    """Whether a word names an image or a sound that exists."""
    return Path(given).suffix.lower() in IMAGES | {".wav"} and is_file(given)
