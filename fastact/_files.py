"""Files that survive: atomic writing, and safetensors with a checksum.

``write_atomically`` writes beside the target, flushes to the disk and renames, so that a full disk or a kill leaves
either the earlier file or the new one. ``write_tensors`` gives the same content the same bytes. ``read_tensors`` turns
every way in which a file can be wrong into one ``ModelFileError`` that says what to do.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import secrets
import time
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastact.errors import ModelFileError

PathLike = str | os.PathLike[str]
Tensors = dict[str, npt.NDArray[Any]]

BESIDE = "trainer/"  # begins the names of arrays that are no weights: what a training checkpoint holds besides
CHECKSUM = "checksum"  # key in the metadata of the CRC-32 of everything else

STALE_SECONDS = 3600.0  # without a write for so long, a file beside the target is what a killed process has left

# First bytes of files that people try to load as a model, and what to do with them.
_FOREIGN = {
    b"PK\x03\x04": "a ZIP archive (PyTorch .pt, .npz and .keras files are); load it with its own library, "
    "then model.load_state_dict(arrays by name)",
    b"\x89HDF": "an HDF5 file (Keras .h5); load it with Keras, then model.load_state_dict(arrays by name)",
    b"\x80": "a Python pickle, which is code; load it where you trust it, then model.load_state_dict(arrays by name)",
    b"\x93NUMPY": "an .npy file; model.load_state_dict takes arrays by name",
}


def write_atomically(path: PathLike, *pieces: bytes | memoryview) -> None:
    """Replace the file at ``path`` by ``pieces``, one after the other, or leave it as it was.

    Raises
    ------
    OSError
        The same kind that the system raised (no space, no folder, no permission), with a message.
    """
    name = os.fsdecode(path)
    target = os.path.realpath(name)  # through a symbolic link, as open() writes
    if os.path.isdir(target):
        raise IsADirectoryError(
            f"path: expected a file name, got the folder {name}; add a name, such as model.safetensors"
        )
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"path: the folder {folder} of {name} does not exist; make it first: os.makedirs({folder!r})"
        )
    _sweep(target)
    beside = f"{target}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        with open(beside, "xb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(target):
            os.chmod(beside, os.stat(target).st_mode & 0o7777)
        os.replace(beside, target)
    except BaseException as error:  # a KeyboardInterrupt must not leave the half-written file either
        with contextlib.suppress(OSError):
            os.unlink(beside)
        if isinstance(error, OSError):
            kept = "; the earlier file is as it was" if os.path.exists(target) else ""
            raise type(error)(error.errno, f"path: cannot write {name}: {error.strerror}{kept}") from error
        raise
    if os.name == "posix":  # the rename itself reaches the disk with its folder
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _sweep(target: str) -> None:
    """Remove what killed processes have left beside ``target``; what was written to lately may be another's in work."""
    for beside in glob.glob(f"{glob.escape(target)}.[0-9]*-{'[0-9a-f]' * 8}.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - os.stat(beside).st_mtime > STALE_SECONDS:
                os.unlink(beside)


def write_tensors(path: PathLike, tensors: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Write arrays and string metadata as a safetensors file, atomically, with a checksum."""
    from safetensors.numpy import save

    dense = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str) or key == CHECKSUM:
            raise TypeError(
                f"metadata: expected strings under string keys other than {CHECKSUM!r}, got {key!r}: {value!r}"
            )
    # The library would write the metadata in another order each time; so it is set into the header here, sorted.
    data = memoryview(save(dense))
    end = 8 + int.from_bytes(data[:8], "little")
    facts = dict(sorted({**metadata, CHECKSUM: _checksum(dense, metadata)}.items()))
    header = {"__metadata__": facts, **json.loads(bytes(data[8:end]))}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the arrays begin at a multiple of 8 bytes
    write_atomically(path, len(text).to_bytes(8, "little"), text, data[end:])


def read_tensors(path: PathLike) -> tuple[Tensors, dict[str, str]]:
    """The arrays and the metadata of a safetensors file, its checksum verified where it has one.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
    ModelFileError
        If it is damaged, truncated or no safetensors file.
    """
    from safetensors.numpy import load

    name = os.fsdecode(path)
    try:
        with open(name, "rb") as file:
            data = file.read()  # not a memory map: a file cut short meanwhile would kill the process
    except FileNotFoundError:
        raise FileNotFoundError(f"path: no file {name} (in {os.getcwd()})") from None
    except IsADirectoryError:
        raise IsADirectoryError(f"path: expected a model file, got the folder {name}") from None
    if not data:
        raise ModelFileError(f"path: {name} is empty; save the model again")
    for magic, advice in _FOREIGN.items():
        if data.startswith(magic) and data[8:9] != b"{":
            raise ModelFileError(f"path: expected a safetensors file, got {name}, {advice}")
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header.get("__metadata__") or {}
    except MemoryError:
        raise
    except Exception as error:  # SafetensorError, and what unknown element types raise
        raise ModelFileError(
            f"path: {name} ({len(data)} bytes) is damaged, truncated or no safetensors file: {error}; "
            "take an earlier copy or save again"
        ) from error
    expected = metadata.pop(CHECKSUM, None)
    if expected is not None and expected != _checksum(tensors, metadata):
        raise ModelFileError(
            f"path: {name} is damaged (its checksum does not fit), or another program has changed it; take an earlier "
            "copy, or, if the change was meant, model.load_state_dict(safetensors.numpy.load_file(path))"
        )
    return tensors, metadata


def _checksum(tensors: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> str:
    """CRC-32 of names, types, shapes, contents and metadata, whatever their order in the file."""
    crc = zlib.crc32(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        array = tensors[name]
        crc = zlib.crc32(json.dumps([name, array.dtype.str, array.shape]).encode(), crc)
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    return f"{crc:08x}"
