"""The place of a file: a lock against a second writer, and a change that happens whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

from pyro_gan.checks import instance
from pyro_gan.files.layout import DamagedError, pack, unpack

if sys.platform != "win32":
    import fcntl

__all__ = ["FileError", "check_path", "load", "save", "writer"]

# Not on every system: links are followed where they cannot be refused, and only Windows changes the ends of lines.
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_PART = re.compile(r"\.[0-9a-f]{16}\.part")


@final
class FileError(ValueError):
    """A file that cannot be read, is damaged, or belongs to somebody else; the message names it and the cure."""


def check_path(name: str, value: Any) -> Path:
    """Return a path that a file can be written to.

    Raises:
        ValueError: if it is no path, is a folder, or lies in no folder.
    """
    path = Path(instance(name, value, str, os.PathLike))
    if not path.parent.is_dir():
        raise ValueError(f"Expected {name} in an existing folder; there is no {path.parent}. Create it.")
    if path.is_dir():
        raise ValueError(f"Expected {name} to be the path of a file; got the folder {path}. Add a file name.")
    return path


@contextmanager
def writer(path: str | os.PathLike[str], *, kind: str) -> Iterator[Callable[[Any], None]]:
    """Hold a path against other writers, and write to it as often as wanted.

    The lock is a file beside the path, `<path>.lock`, which is removed at the end. It ends with the process, even with
    one that is killed. (Windows, and network file systems without locks, have none.) What a killed process had written
    so far is removed by the next writer.

    Args:
        path: The file; it need not exist.
        kind: What the file is, in words, for instance "training checkpoint". Only `load` with the same words reads it.

    Yields:
        A function of the content: tensors, numbers, strings, None, and lists, tuples, sets and dicts of them. It writes
        to a new file of an unguessable name in the same folder, which follows no symbolic link, and moves that to the
        path: a crash, a kill or a full disk at any moment leaves the old file or the new one. It raises `OSError` if
        the system cannot write (the old file is then unchanged and the new one removed), and `ValueError` if the
        content holds anything else.

    Raises:
        FileError: if another process, or another thread, holds the path, or the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "steps")
        ...     with writer(path, kind="step count") as write:
        ...         for step in range(3):
        ...             write({"step": step})
        ...     load(path, kind="step count")
        {'step': 2}
    """
    place = check_path("path", path)
    with _lock(place, kind):
        for entry in os.scandir(place.parent):
            if entry.name.startswith(place.name) and _PART.fullmatch(entry.name[len(place.name) :]):
                with suppress(OSError):
                    os.unlink(entry.path)
        yield lambda content: _write(place, pack(content, kind))


def save(path: str | os.PathLike[str], content: Any, *, kind: str) -> None:
    """Write one file: `writer` for a single time.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(os.path.join(folder, "numbers"), (1, 2.5), kind="numbers")
        ...     load(os.path.join(folder, "numbers"), kind="numbers")
        (1, 2.5)
    """
    with writer(path, kind=kind) as write:
        write(content)


def load(path: str | os.PathLike[str], *, kind: str) -> Any:
    """Return the content of a file that `writer` or `save` wrote, with its tensors on the CPU.

    Args:
        path: The file.
        kind: The words that it was written with.

    Raises:
        FileError: if the file cannot be read, is damaged (one bit is enough), or is another kind of file.
    """
    place = Path(instance("path", path, str, os.PathLike))
    try:
        with place.open("rb") as file:
            raw = bytearray(os.fstat(file.fileno()).st_size)
            file.readinto(raw)
        return unpack(raw, kind)
    except (DamagedError, OSError) as error:
        why = str(error) if isinstance(error, DamagedError) else f"cannot be read ({error.strerror})"
        raise FileError(
            f"Expected a {kind} at {place}; got a file that {why}. Give another path, restore a copy of the file, or "
            "delete it to begin anew."
        ) from error


def _write(path: Path, into: Callable[[Any], None]) -> None:
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINKS | _BINARY, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            into(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise
    if sys.platform != "win32":  # without this a power failure could undo the move
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            with suppress(OSError):  # some file systems cannot
                os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def _lock(path: Path, kind: str) -> Iterator[None]:
    beside = path.with_name(f"{path.name}.lock")
    try:
        descriptor = _locked(beside)
    except BlockingIOError as error:
        raise FileError(
            f"Expected to be the only writer of {path}; another one is at work there. Wait until it has ended, or give "
            f"another path for this {kind}."
        ) from error
    except OSError as error:
        raise FileError(
            f"Expected a place for a {kind} at {path}; {beside} cannot be opened ({error.strerror}). Give a folder "
            "that you may write to, without a link of that name."
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):
            if _is_at(beside, descriptor):
                os.unlink(beside)
        # Processes forked meanwhile hold the same descriptor, so closing it would not be enough.
        if sys.platform != "win32":
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _locked(beside: Path) -> int:
    """Return the descriptor of the lock file, locked. Nothing is ever written to it."""
    while True:
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | _NO_LINKS, 0o666)
        try:
            if sys.platform != "win32":
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(beside, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise
        except OSError:  # a file system without locks
            return descriptor
        # Another writer ended, and removed the file, between our opening and our locking it.
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Return whether the open file is the one of that name."""
    try:
        there, here = os.lstat(path), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
