"""The bytes of a file: JSON and raw numbers, in the layout of safetensors, with a checksum over all of them.

The file begins with the length of its header, in eight bytes, and the header, which is JSON: type, shape and place of
each tensor, and under `__metadata__` the checksum and everything that is no tensor. Then follow the numbers. Programs
that read safetensors can open such a file. Nothing in it is a pickle, so reading it runs no code.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO, final

import torch
from torch import Tensor

from pyro_gan.checks import shown

__all__ = ["DamagedError", "pack", "unpack"]

#: Name of the layout; a file of another one is refused.
FORMAT = "pyro_gan 2"

_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_LENGTH = 8  # bytes of the header's length
_BEFORE_DIGEST = b'{"__metadata__":{"sha256":"'
_NO_DIGEST = "0" * 64
_DIGEST = slice(_LENGTH + len(_BEFORE_DIGEST), _LENGTH + len(_BEFORE_DIGEST) + len(_NO_DIGEST))


@final
class DamagedError(Exception):
    """The bytes are not those of a file of this layout; the message continues "a file that ..."."""


def pack(content: Any, kind: str) -> Callable[[BinaryIO], None]:
    """Return a function that writes the content to an open file.

    Args:
        content: Tensors, numbers, strings, None, and lists, tuples, sets and dicts of them.
        kind: What the file is, in words.

    Raises:
        ValueError: if the content holds anything else; it names the place.
    """
    tensors: list[Tensor] = []
    tree = json.dumps(_encode(content, tensors, "content"), allow_nan=False)
    # Numbers of wide types come first, so that each begins at a multiple of its width.
    order = sorted(range(len(tensors)), key=lambda index: -tensors[index].element_size())
    metadata = {"sha256": _NO_DIGEST, "format": FORMAT, "kind": kind, "content": tree}
    entries: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for index in order:
        tensor, begin = tensors[index], end
        end += tensor.numel() * tensor.element_size()
        shape = list(tensor.shape)
        entries[str(index)] = {"dtype": _NAMES[tensor.dtype], "shape": shape, "data_offsets": [begin, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _LENGTH)
    head = len(header).to_bytes(_LENGTH, "little") + header

    def write(file: BinaryIO) -> None:
        digest = hashlib.sha256()
        for part in _chain(head, (tensors[index] for index in order)):
            digest.update(part)
            file.write(part)
        file.seek(_DIGEST.start)
        file.write(digest.hexdigest().encode())

    return write


def unpack(raw: bytearray, kind: str) -> Any:
    """Return the content of a file's bytes.

    Raises:
        DamagedError: if the bytes are not those of such a file.
    """
    if not raw:
        raise DamagedError("is empty")
    if raw[_LENGTH : _DIGEST.start] != _BEFORE_DIGEST or len(raw) < _DIGEST.stop:
        raise DamagedError("pyro_gan has not written, or whose beginning is damaged")
    digest = raw[_DIGEST]
    raw[_DIGEST] = _NO_DIGEST.encode()
    if hashlib.sha256(raw).hexdigest().encode() != digest:
        raise DamagedError(
            "is damaged: its checksum is that of other bytes, so bits have changed or its end is missing"
        )
    try:
        start = _LENGTH + int.from_bytes(raw[:_LENGTH], "little")
        entries = json.loads(raw[_LENGTH:start])
        metadata = entries.pop("__metadata__")
        found = metadata["format"], metadata["kind"]
        if found == (FORMAT, kind):
            tensors = {int(name): _tensor(raw, start, entry) for name, entry in entries.items()}
            return _decode(json.loads(metadata["content"]), tensors)
    except (KeyError, IndexError, TypeError, ValueError, RecursionError, AttributeError) as error:
        raise DamagedError(f"holds no content of this layout ({type(error).__name__})") from error
    raise DamagedError("is a {1}, in the format {0!r}".format(*found))


def _chain(head: bytes, tensors: Iterable[Tensor]) -> Iterable[Any]:
    """Yield the bytes of the header, then those of each tensor, one on the CPU at a time."""
    yield head
    for tensor in tensors:
        yield tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _tensor(raw: bytearray, start: int, entry: dict[str, Any]) -> Tensor:
    dtype, shape, (begin, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    if not 0 <= begin <= end <= len(raw) - start or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError("a tensor lies outside the file")
    if begin == end:
        return torch.empty(shape, dtype=dtype)
    # A copy, because a view would keep the bytes of the whole file.
    count = (end - begin) // dtype.itemsize
    return torch.frombuffer(raw, dtype=dtype, count=count, offset=start + begin).reshape(shape).clone()


def _encode(value: Any, tensors: list[Tensor], where: str) -> Any:
    """Return the value as JSON; what JSON does not know becomes an object of one entry, its type."""

    def each(values: Iterable[Any]) -> list[Any]:
        return [_encode(item, tensors, f"{where}[{index}]") for index, item in enumerate(values)]

    def pairs(mapping: dict[Any, Any]) -> list[Any]:
        return [
            [_encode(key, tensors, f"a key of {where}"), _encode(item, tensors, f"{where}[{key!r}]")]
            for key, item in mapping.items()
        ]

    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, list):
        return each(value)
    if isinstance(value, tuple | set):
        return {"tuple" if isinstance(value, tuple) else "set": each(value)}
    if isinstance(value, Counter):
        return {"counter": pairs(value)}
    if isinstance(value, OrderedDict):  # of a module: its attributes hold the versions of the layers
        return {"ordered": [pairs(value), pairs(vars(value))]}
    if isinstance(value, dict):
        return {"dict": pairs(value)}
    if isinstance(value, Tensor) and value.layout is torch.strided and value.device.type != "meta":
        value = value.detach()
        is_complex = value.is_complex()
        value = torch.view_as_real(value.resolve_conj()) if is_complex else value.resolve_neg()
        if value.dtype in _NAMES:
            tensors.append(value)
            return {"complex" if is_complex else "tensor": len(tensors) - 1}
    raise ValueError(
        f"Expected only tensors, numbers, strings and containers of them in a file; got {shown(value)} at {where}. "
        "Leave it out of the state_dict, or return it as one of those."
    )


def _decode(tree: Any, tensors: dict[int, Tensor]) -> Any:
    if isinstance(tree, list):
        return [_decode(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    ((tag, inner),) = tree.items()

    def mapping(pairs: Any) -> dict[Any, Any]:
        return {_decode(key, tensors): _decode(item, tensors) for key, item in pairs}

    def ordered(both: Any) -> OrderedDict[Any, Any]:
        found = OrderedDict(mapping(both[0]))
        vars(found).update(mapping(both[1]))
        return found

    readers: dict[str, Callable[[Any], Any]] = {
        "float": float,
        "tuple": lambda items: tuple(_decode(items, tensors)),
        "set": lambda items: set(_decode(items, tensors)),
        "counter": lambda pairs: Counter(mapping(pairs)),
        "ordered": ordered,
        "dict": mapping,
        "tensor": lambda index: tensors[index],
        "complex": lambda index: torch.view_as_complex(tensors[index]),
    }
    return readers[tag](inner)
