"""Files of arrays and JSON: everything comes back, every damage is found, and a crash leaves the old file."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_gan._files import check_equal, check_path, read, replaced, write

CONTENT: dict[str, Any] = {
    "floats": torch.randn(3, 2),
    "half": torch.randn(4).bfloat16(),
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "empty": torch.zeros(0, 5),
    "whole": torch.arange(3),
    "flags": torch.tensor([True, False]),
    "complex": torch.randn(2, dtype=torch.complex64),
    "nested": {"list": [1, 2.5, None, "word", {"items": torch.ones(1)}], "infinite": float("inf"), "flag": True},
}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_everything_comes_back(tmp_path: Path) -> None:
    write(tmp_path / "a.zip", "things", CONTENT)
    assert same(read(tmp_path / "a.zip", "things"), CONTENT)
    with np.load(tmp_path / "a.zip", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["floats"], CONTENT["floats"])


def test_every_flipped_bit_is_found_or_harmless(tmp_path: Path) -> None:
    """Most flips raise; a few are in parts of a zip that carry nothing, such as dates. None changes what is read."""
    path = tmp_path / "a.zip"
    write(path, "things", {"a": torch.arange(3.0), "b": 1.5})
    whole, found = path.read_bytes(), 0
    expected = read(path, "things")
    for index in range(0, len(whole), 3):
        bent = bytearray(whole)
        bent[index] ^= 1 << (index % 8)
        path.write_bytes(bent)
        try:
            assert same(read(path, "things"), expected), index
        except ValueError as error:
            found += 1
            assert "a whole file of things" in str(error)
    assert found > 0.15 * len(whole)


def test_files_that_are_cut_off_or_of_another_kind_raise(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    write(path, "things", CONTENT)
    whole = path.read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="a whole file of things"):
            read(path, "things")
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="a file of others at .*; got one of things"):
        read(path, "others")
    for other in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match="cannot be read"):
            read(other, "things")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path, member = tmp_path / "a.zip", io.BytesIO()
    np.lib.format.write_array(member, np.array([print], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", member.getvalue())
        content = {"items": {"a": {"array": "a.npy", "dtype": "float32"}}}
        archive.writestr("header.json", json.dumps({"kind": "things", "content": content}))
    with pytest.raises(ValueError, match="cannot be read"):
        read(path, "things")


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt(), ValueError("bent")])
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    write(path, "things", CONTENT)
    before = path.read_bytes()
    with pytest.raises(type(error)), replaced(path) as file:
        file.write(b"half")
        raise error
    with pytest.raises(ValueError, match="at 'nested/1'; got set"):
        write(path, "things", {"nested": [1, {2}]})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_no_link_is_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "a.zip"
    victim.write_text("precious")
    for name in ("a.zip.part", ".a.zip.part", "a.zip"):
        (tmp_path / name).symlink_to(victim)
    write(path, "things", CONTENT)
    assert victim.read_text() == "precious" and not path.is_symlink() and same(read(path, "things"), CONTENT)


def test_paths_that_cannot_be_written_raise_at_once(tmp_path: Path) -> None:
    for path, said in ((tmp_path, "got the folder"), (tmp_path / "no/a.zip", "there is no"), (3, "of type str")):
        with pytest.raises(ValueError, match=said):
            check_path("path", path)


def test_the_first_setting_that_differs_is_named() -> None:
    check_equal("run", {"a": {"b": 1}}, {"a": {"b": 1}})
    for there, said in (
        ({"a": {"b": 2}}, "a b is 2, and here 1"),
        ({"a": {}}, "a b is None"),
        (None, "settings is None"),
    ):
        with pytest.raises(ValueError, match=said):
            check_equal("run", there, {"a": {"b": 1}})
