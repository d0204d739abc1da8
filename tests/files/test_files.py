"""Files under attack: killed writers, full disks, flipped bits, cut ends, links, second writers, foreign files."""

from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import pickle
import random
import signal
import struct
import threading
import time
import warnings
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pyro_gan import files
from pyro_gan.files import FileError, load, save, writer

KIND = "test file"
# A child of a fork starts at once; one that imports torch takes seconds.
FORK = multiprocessing.get_context("fork")


def content(version: int = 0) -> dict[Any, Any]:
    generator = torch.Generator().manual_seed(version)
    return {
        "version": version,
        "weights": torch.randn(5, 3, generator=generator),
        "half": torch.randn(3, generator=generator).bfloat16(),
        "complex": torch.randn(2, dtype=torch.complex128, generator=generator),
        "flags": torch.tensor([True, False, True]),
        "whole": torch.tensor(3),
        "none": [None, True, (1, -(2**70)), {"a", "b"}, torch.empty(0, 4)],
        7: {"betas": (0.9, 0.999), "wild": [math.inf, -math.inf, -0.0, 1e-320], "text": "σ \ud83d \x00"},
        "counter": Counter({3: 2}),
    }


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other and str(one) == str(other) if not isinstance(one, set) else one == other


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_content_comes_back_as_it_was(tmp_path: Path) -> None:
    for path in (tmp_path / "file", str(tmp_path / "other")):
        save(path, content(), kind=KIND)
        assert equal(load(path, kind=KIND), content())
    assert names(tmp_path) == ["file", "other"]
    found = load(tmp_path / "file", kind=KIND)
    assert not equal(found | {"version": 1}, content())  # the comparison itself can fail
    save(tmp_path / "nan", math.nan, kind=KIND)
    assert math.isnan(load(tmp_path / "nan", kind=KIND))
    transposed = torch.arange(6.0).reshape(2, 3).T
    save(tmp_path / "t", [transposed, transposed[1:], torch.nn.Parameter(transposed)], kind=KIND)
    assert all(map(torch.equal, load(tmp_path / "t", kind=KIND), [transposed, transposed[1:], transposed]))


def test_a_module_keeps_the_versions_of_its_layers(tmp_path: Path) -> None:
    state = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).state_dict()
    save(tmp_path / "file", state, kind=KIND)
    found = load(tmp_path / "file", kind=KIND)
    assert type(found) is OrderedDict and vars(found) == vars(state) and equal(found, state)


def test_the_layout_is_that_of_safetensors(tmp_path: Path) -> None:
    save(tmp_path / "file", content(), kind=KIND)
    raw = (tmp_path / "file").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    assert length % 8 == 0 and all(isinstance(text, str) for text in header.pop("__metadata__").values())
    ends = sorted(entry["data_offsets"] for entry in header.values())
    assert ends[0][0] == 0 and ends[-1][1] == len(raw) - 8 - length
    assert all(before[1] == after[0] for before, after in zip(ends, ends[1:], strict=False))  # no holes
    entry = next(entry for entry in header.values() if entry["shape"] == [5, 3])
    begin = 8 + length + entry["data_offsets"][0]
    assert entry["dtype"] == "F32"
    assert list(struct.unpack("<15f", raw[begin : begin + 60])) == content()["weights"].flatten().tolist()


@pytest.mark.parametrize("bad", [object(), Path("x"), lambda: 0, torch.zeros(2).to_sparse(), b"x", {"deep": [print]}])
def test_other_types_raise_and_leave_the_file_as_it_was(bad: Any, tmp_path: Path) -> None:
    save(tmp_path / "file", 1, kind=KIND)
    with pytest.raises(ValueError, match=r"tensors, numbers, strings.* at content\['state'\]"):
        save(tmp_path / "file", {"state": bad}, kind=KIND)
    assert load(tmp_path / "file", kind=KIND) == 1 and names(tmp_path) == ["file"]


def test_one_flipped_bit_is_found_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save(path, content(), kind=KIND)
    raw = path.read_bytes()
    places = [*range(8 * 8), *random.sample(range(8 * 99), 100), *range(8 * len(raw) - 8, 8 * len(raw))]
    places += random.sample(range(8 * len(raw)), 300)
    for place in places:  # the length, the checksum, the end, anywhere
        bent = bytearray(raw)
        bent[place // 8] ^= 1 << place % 8
        path.write_bytes(bent)
        with pytest.raises(FileError, match="damaged"):
            load(path, kind=KIND)
    path.write_bytes(raw)
    assert equal(load(path, kind=KIND), content())


def test_a_cut_or_lengthened_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save(path, content(), kind=KIND)
    raw = path.read_bytes()
    cuts = [raw[: len(raw) * tenth // 10] for tenth in range(10)] + [raw[:-1], raw[:7], raw[:60], raw + b"\0", raw * 2]
    for bent in cuts:
        path.write_bytes(bent)
        with pytest.raises(FileError, match=f"test file at {path}; got a file that .*(Give another path|delete it)"):
            load(path, kind=KIND)


class Malice:
    """A pickle that leaves a trace when it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


def test_foreign_files_raise_one_error_and_run_no_code(tmp_path: Path) -> None:
    path, trace = tmp_path / "file", tmp_path / "trace"
    torch.save({"weights": torch.zeros(3)}, path)
    foreign = [path.read_bytes(), pickle.dumps(Malice(trace)), b"", b"\0" * 500, b"{}", os.urandom(500)]
    # A file of the right layout by another program has no checksum of ours.
    foreign += [struct.pack("<Q", 2) + b"{}", struct.pack("<Q", 2**63) + b'{"__metadata__":{"sha256":"' + b"0" * 99]
    for raw in foreign:
        path.write_bytes(raw)
        with pytest.raises(FileError, match=f"Expected a test file at {path}"):
            load(path, kind=KIND)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Malice(trace)))
    assert trace.exists()  # what a reader of pickles would have done
    save(path, 1, kind="other file")
    with pytest.raises(FileError, match="is a other file, in the format 'pyro_gan 2'"):
        load(path, kind=KIND)
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileError, match="cannot be read"):
            load(place, kind=KIND)


def test_content_with_a_right_checksum_and_wrong_places_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "file"
    real = json.dumps
    for changes in (
        {"data_offsets": [0, 10**9]}, {"data_offsets": [-4, 56]}, {"shape": [5, 4]}, {"dtype": "F99"}, {"shape": None},
    ):  # fmt: skip

        def bend(value: Any, changes: Any = changes, **options: Any) -> str:
            if isinstance(value, dict) and "0" in value:
                value = value | {"0": value["0"] | changes}
            return real(value, **options)

        monkeypatch.setattr(json, "dumps", bend)
        save(path, torch.ones(5, 3), kind=KIND)
        with pytest.raises(FileError, match="holds no content of this layout"):
            load(path, kind=KIND)


def test_links_are_not_followed(tmp_path: Path, monkeypatch: Any) -> None:
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_text("precious")
    with writer(path, kind=KIND) as write:
        write(1)
        monkeypatch.setattr("secrets.token_hex", lambda size: "0" * 2 * size)  # the attacker has guessed
        os.symlink(victim, tmp_path / f"file.{'0' * 16}.part")
        with pytest.raises(FileExistsError):
            write(2)
        monkeypatch.undo()
        write(3)
    assert load(path, kind=KIND) == 3 and victim.read_text() == "precious"
    # A link in the place of the file is replaced, not followed.
    path.unlink()
    os.symlink(victim, path)
    save(path, 4, kind=KIND)
    assert not path.is_symlink() and load(path, kind=KIND) == 4 and victim.read_text() == "precious"
    os.symlink(victim, tmp_path / "file.lock")
    with pytest.raises(FileError, match=r"file.lock cannot be opened"):
        save(path, 5, kind=KIND)
    assert victim.read_text() == "precious" and load(path, kind=KIND) == 4


def test_names_of_parts_differ(tmp_path: Path, monkeypatch: Any) -> None:
    seen = []
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda part, path: (seen.append(str(part)), real(part, path)))
    for version in range(20):
        save(tmp_path / "file", version, kind=KIND)
    assert len(set(seen)) == 20 and all(Path(part).parent == tmp_path for part in seen)


@pytest.mark.parametrize("call", ["fsync", "replace", "write"])
def test_a_full_disk_leaves_the_old_file_and_no_part(call: str, tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "file"
    save(path, content(1), kind=KIND)

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with writer(path, kind=KIND) as write:
        if call == "write":
            monkeypatch.setattr(files.place.os, "fdopen", lambda descriptor, mode: Full(descriptor))
        else:
            monkeypatch.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left"):
            write(content(2))
        monkeypatch.undo()
        assert equal(load(path, kind=KIND), content(1)) and names(tmp_path) == ["file", "file.lock"]
        write(content(3))
    assert equal(load(path, kind=KIND), content(3)) and names(tmp_path) == ["file"]


class Full:
    """A file on a disk that takes 100 bytes."""

    def __init__(self, descriptor: int) -> None:
        self.file, self.room = open(descriptor, "wb"), 100

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *error: Any) -> None:
        self.file.close()

    def write(self, raw: bytes) -> None:
        self.file.write(memoryview(raw)[: self.room])
        self.room -= len(raw)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    big = {"version": 0, "weights": torch.zeros(300_000)}
    save(path, big, kind=KIND)

    def write_on() -> None:
        with writer(path, kind=KIND) as write:
            for version in range(1, 10**6):
                write({"version": version, "weights": torch.full((300_000,), float(version))})

    parts = 0
    for _ in range(12):
        child = FORK.Process(target=write_on)
        child.start()
        time.sleep(random.uniform(0.05, 0.15))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        found = load(path, kind=KIND)
        assert bool((found["weights"] == found["version"]).all())
        parts += sum(name.endswith(".part") for name in names(tmp_path))
    assert parts >= 1, "no child was killed while it wrote"
    save(path, big, kind=KIND)  # the next writer needs no help, and clears up
    assert names(tmp_path) == ["file"]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    errors: list[str] = []

    def attempt() -> None:
        try:
            save(path, "second", kind=KIND)
        except FileError as error:
            errors.append(str(error))

    def attempt_in_child() -> None:
        try:
            save(path, "second", kind=KIND)
        except FileError:
            os._exit(3)

    with writer(path, kind=KIND) as write:
        write("first")
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        child = FORK.Process(target=attempt_in_child)
        child.start()
        child.join()
        assert child.exitcode == 3 and "only writer of" in errors[0] and "give another path" in errors[0]
        assert load(path, kind=KIND) == "first"
        save(tmp_path / "other", 1, kind=KIND)  # another file of the folder is free
    save(path, "third", kind=KIND)
    assert load(path, kind=KIND) == "third" and names(tmp_path) == ["file", "other"]


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "file"
    held, hold = FORK.Event(), FORK.Event()

    def keep() -> None:
        with writer(path, kind=KIND):
            held.set()
            hold.wait()

    child = FORK.Process(target=keep)
    child.start()
    assert held.wait(20)
    with pytest.raises(FileError, match="only writer"):
        save(path, 1, kind=KIND)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    save(path, 1, kind=KIND)
    assert names(tmp_path) == ["file"]


def test_many_writers_in_turn_lose_nothing(tmp_path: Path) -> None:
    """Each child adds its number when it gets the lock; a lock that two could hold would lose one."""
    path = tmp_path / "file"
    save(path, [], kind=KIND)

    def add(number: int) -> None:
        while True:
            try:
                with writer(path, kind=KIND) as write:
                    write([*load(path, kind=KIND), number])
                return
            except FileError as error:
                assert "only writer" in str(error)
                time.sleep(0.002)

    children = [FORK.Process(target=lambda n=n: [add(10 * n + i) for i in range(5)]) for n in range(6)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert sorted(load(path, kind=KIND)) == sorted(10 * n + i for n in range(6) for i in range(5))
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (None, "path of type str or PathLike"),
        (3, "path of type"),
        ("", "got the folder"),
        ("none/x", "there is no none"),
    ],
)
def test_paths_that_are_none_raise(path: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        save(path, 1, kind=KIND)


def test_random_trees_come_back(tmp_path: Path) -> None:
    def tree(depth: int) -> Any:
        leaves = [
            lambda: random.randint(-(10**20), 10**20), lambda: random.gauss(0, 1e3), lambda: None,
            lambda: random.random() < 0.5, lambda: chr(random.randint(0, 0xFFFF)) * 3, lambda: math.inf,
            lambda: torch.rand(random.randint(0, 3), 2),
        ]  # fmt: skip
        if depth == 0 or random.random() < 0.3:
            return random.choice(leaves)()
        items = [tree(depth - 1) for _ in range(random.randint(0, 3))]
        return random.choice([items, tuple(items), dict(enumerate(items)), dict(zip("abc", items, strict=False))])

    with writer(tmp_path / "file", kind=KIND) as write:
        for _ in range(60):
            expected = tree(4)
            write(expected)
            assert equal(load(tmp_path / "file", kind=KIND), expected)


def test_nothing_is_said_where_nothing_is_wrong(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(tmp_path / "file", content(), kind=KIND)
        load(tmp_path / "file", kind=KIND)
