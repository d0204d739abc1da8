"""Files of arrays and JSON: written whole or not at all, read without running any code."""

from __future__ import annotations

import io
import json
import os
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from pyro_gan.checks import instance

__all__ = ["check_equal", "check_path", "read", "replaced", "write"]

_HEADER = "header.json"

#: What NumPy has no dtype for is stored as whole numbers of the same bits.
_BITS = {torch.bfloat16: torch.int16}

#: What a file that is cut off, bent or of another program can raise while it is read.
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    MemoryError,
    OverflowError,
    zipfile.BadZipFile,
    struct.error,
)


def check_path(name: str, path: Any) -> Path:
    """Return a path to write to; raise now, and not at the first write, if there is no folder for it.

    Raises:
        ValueError: if it is no path, is a folder, or lies in a folder that does not exist.
    """
    found = Path(instance(name, path, str, os.PathLike, cure="Give the path of a file."))
    if found.is_dir():
        raise ValueError(f"Expected {name} to be the path of a file; got the folder {found}. Add a file name.")
    if not found.parent.is_dir():
        raise ValueError(f"Expected {name} in an existing folder; there is no {found.parent}. Create it.")
    return found


def check_equal(name: str, there: Any, here: Any, *, inside: str = "") -> None:
    """Raise unless the settings in a file are those in use, naming the first one that is not.

    Args:
        name: What the settings are of.
        there: What the file holds.
        here: What is in use: a dictionary, whose values may be dictionaries.
        inside: The key that led here.

    Raises:
        ValueError: with both values.
    """
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in [*here, *(key for key in there if key not in here)]:
            check_equal(name, there.get(key), here.get(key), inside=f"{inside} {key}".strip())
    elif there != here:
        raise ValueError(
            f"Expected the settings of the saved {name}; its {inside or 'settings'} is {there!r}, and here {here!r}. "
            "Build it with the same settings, or give another path."
        )


@contextmanager
def replaced(path: Path) -> Iterator[IO[bytes]]:
    """Write a file beside its place, and move it there at the end: a crash leaves the old file or the new one.

    The file beside has a name that no other writer has and follows no link. It is removed if the writing fails.
    """
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def write(path: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them to a zip of `.npy` arrays and one `header.json`.

    `numpy.load(path)["samples/z.npy"]`, or any other reader of zips, gets at an array by the keys that lead to it.

    Args:
        path: The file.
        kind: What it is a file of, for `read`.
        content: A dictionary; its containers are dictionaries with string keys, lists and tuples, which become lists.
    """
    arrays: dict[str, Tensor] = {}
    header = {"kind": kind, "content": _without_arrays(content, "", arrays)}
    with replaced(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, value in arrays.items():
            bits = value.detach().cpu()
            bits = bits.view(_BITS[bits.dtype]) if bits.dtype in _BITS else bits
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, bits.numpy(), allow_pickle=False)
        archive.writestr(_HEADER, json.dumps(header, indent=1))


def read(path: Path, kind: str) -> dict[str, Any]:
    """Return what `write` was given, with tensors on the CPU.

    Every byte is checked against its checksum, and nothing is unpickled.

    Raises:
        ValueError: if the file cannot be read, is damaged, or is of another kind.
    """
    cure = "Give another path, or write it again."
    try:
        with zipfile.ZipFile(path) as archive:
            header = json.loads(archive.read(_HEADER))
            arrays = {name: _array(archive.read(name)) for name in archive.namelist() if name != _HEADER}
        found = header["kind"]
        content = _with_arrays(header["content"], arrays) if found == kind else {}
    except _UNREADABLE as error:
        raise ValueError(f"Expected a whole file of {kind} at {path}; it cannot be read ({error!r}). {cure}") from error
    if found != kind:
        raise ValueError(f"Expected a file of {kind} at {path}; got one of {found}. {cure}")
    if not isinstance(content, dict):
        raise ValueError(f"Expected a whole file of {kind} at {path}; its header holds no dictionary. {cure}")
    return content


def _array(member: bytes) -> np.ndarray:
    return np.lib.format.read_array(io.BytesIO(member), allow_pickle=False)


def _without_arrays(value: Any, name: str, arrays: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        arrays[name] = value
        return {"array": f"{name}.npy", "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, Mapping):
        return {
            "items": {key: _without_arrays(item, f"{name}/{key}".strip("/"), arrays) for key, item in value.items()}
        }
    if isinstance(value, list | tuple):
        return [_without_arrays(item, f"{name}/{index}".strip("/"), arrays) for index, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(
        f"Expected tensors, numbers, strings and containers of them at {name!r}; got {type(value).__name__}. "
        "Leave it out of the state, or turn it into these."
    )


def _with_arrays(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_with_arrays(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if "items" in value:
        return {key: _with_arrays(item, arrays) for key, item in value["items"].items()}
    dtype = getattr(torch, value["dtype"])
    loaded = torch.from_numpy(arrays[value["array"]])
    return loaded.view(dtype) if dtype in _BITS else loaded.to(dtype)
