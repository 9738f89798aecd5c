"""Files: one safetensors file, written whole or not at all, checked when it is read, its large part mapped.

The tensors of a store (queries, keys and row states) may be larger than memory: they are written a piece at a time,
opened by memory map, and the checksum passes over them.
"""

from __future__ import annotations

import ctypes
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from regard.errors import UserError

FORMAT = "regard trace 1"
STORE_FORMAT = "regard trace 2"  # as the first, with tensors under STORE that the checksum leaves out
STORE = "store/"
NO_CHECKSUM = "00000000"
DTYPES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.bool: "BOOL",
    torch.uint8: "U8",
}


class TraceError(UserError):
    """A Trace cannot answer or cannot be read; the message says why and what to do."""


# ---- writing --------------------------------------------------------------------------------------------------------


def save(path: str | Path, tensors: Mapping[str, Tensor], about: str) -> None:
    """Write tensors, and what `about` says of them, to one file. Raises TraceError if it cannot."""
    stored = any(name.startswith(STORE) for name in tensors)
    metadata = {"format": STORE_FORMAT if stored else FORMAT, "checksum": NO_CHECKSUM, "trace": about}
    replace_file(path, lambda file: _write(file, tensors, metadata))


def _write(file: BinaryIO, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    names = sorted(
        tensors, key=lambda name: (-tensors[name].element_size(), name)
    )  # each lies at a multiple of its size
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].nbytes
        shape = list(tensors[name].shape)
        header[name] = {"dtype": DTYPES[tensors[name].dtype], "shape": shape, "data_offsets": [begin, end]}
    said = json.dumps(header, separators=(",", ":")).encode()
    said += b" " * (-len(said) % 8)
    head = len(said).to_bytes(8, "little") + said
    file.write(head)
    crc = zlib.crc32(head)
    for name in names:
        for piece in _pieces(tensors[name].detach()):
            content = (ctypes.c_ubyte * piece.nbytes).from_address(piece.data_ptr()) if piece.nbytes else b""
            file.write(content)
            crc = crc if name.startswith(STORE) else zlib.crc32(content, crc)
    file.seek(0)
    file.write(head.replace(_quoted(NO_CHECKSUM), _quoted(f"{crc:08x}"), 1))


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """The tensor in its order, in parts that lie in one piece, copied no more than a part at a time."""
    if tensor.is_contiguous() or tensor.ndim <= 1:
        yield tensor.cpu().contiguous()
        return
    for part in tensor:
        yield from _pieces(part)


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Write a file whole or not at all. Raises TraceError if it cannot."""
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    replace_file(path, lambda file: file.write(data))


def replace_file(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """A file that `write` fills, whole or not at all: a temporary neighbour, then renamed. Raises TraceError."""
    target = Path(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".regard.", delete=False) as file:
            temporary = file.name
            write(file)  # type: ignore[arg-type]
        os.chmod(temporary, 0o666 & ~_umask())
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(13, "it is read-only")
        os.replace(temporary, target)
        temporary = None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TraceError(f"cannot write {target}: {reason}; choose another path") from None
    finally:
        if temporary is not None:
            os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# ---- reading --------------------------------------------------------------------------------------------------------


def load(path: str | Path) -> tuple[str, dict[str, Tensor]]:
    """What `save` wrote: what it says, and the tensors, mapped. Raises TraceError for a file that is not whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file, open(path, "rb") as raw:
            metadata = file.metadata() or {}
            if metadata.get("format") not in (FORMAT, STORE_FORMAT):
                raise TraceError(
                    f"{path} is no Trace of this version ({FORMAT!r} or {STORE_FORMAT!r}); give a file that Trace.save "
                    "wrote"
                )
            written = metadata.get("checksum", NO_CHECKSUM)
            if written != checksum(raw, written, whole=metadata["format"] == FORMAT):
                raise TraceError(f"{path} was changed or damaged after it was saved; save it again")
            return metadata.get("trace", ""), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise TraceError(f"there is no Trace file {path}; give one that Trace.save wrote") from None
    except TraceError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise TraceError(f"{path} is not a whole Trace file ({_one_line(error)}); save it again") from None


def checksum(file: BinaryIO, written: str, whole: bool = True) -> str:
    """crc32 of a file in which NO_CHECKSUM stands in place of the written checksum; whole=False: without its store."""
    size = file.read(8)
    header = file.read(int.from_bytes(size, "little"))
    crc = zlib.crc32(size + header.replace(_quoted(written), _quoted(NO_CHECKSUM), 1))
    if whole:
        while chunk := file.read(1 << 20):
            crc = zlib.crc32(chunk, crc)
        return f"{crc:08x}"
    begin = file.tell()
    for first, last in _checked_spans(json.loads(header)):
        file.seek(begin + first)
        for at in range(first, last, 1 << 20):
            crc = zlib.crc32(file.read(min(1 << 20, last - at)), crc)
    return f"{crc:08x}"


def _checked_spans(header: Mapping[str, Mapping[str, list[int]]]) -> list[list[int]]:
    """Where the tensors outside the store lie, in the order of the file."""
    return sorted(
        about["data_offsets"] for name, about in header.items() if name != "__metadata__" and not name.startswith(STORE)
    )


def _quoted(checksum: str) -> bytes:
    return f'"checksum":"{checksum}"'.encode()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
