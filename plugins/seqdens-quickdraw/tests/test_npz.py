"""The npz of sketch-rnn: as numpy would read it, but nothing that a pickle says is done."""

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib import format as npy
from seqdens_quickdraw import npz

DRAWING = np.array([[3, 4, 0], [-1, 0, 1], [300, -2, 1]], np.int16)
DTYPES = st.sampled_from(["i1", "<i2", ">i2", "i8", "<f4", ">f8", "u2"])
ROWS = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100), st.integers(0, 1)), min_size=2, max_size=9)


def objects(drawings: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(drawings), object)
    array[:] = drawings
    return array


def write(path: Path, *drawings: Any) -> Path:
    np.savez_compressed(path, train=objects(drawings))
    return path


def write_pickle(path: Path, program: bytes, shape: tuple[int, ...] = (1,)) -> Path:
    """An object array whose pickle is `program`."""
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train.npy", header.getvalue() + program)
    return path


def python2(value: np.ndarray | bytes | int | tuple[Any, ...] | None, flags: int = 0) -> bytes:
    """What Python 2 wrote of an array of objects or numbers, by protocol 2; bytes are its text."""
    if isinstance(value, bytes):
        return b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, tuple):
        return b"(" + b"".join(map(python2, value)) + b"t"
    if not isinstance(value, np.ndarray):
        return b"N" if value is None else b"J" + struct.pack("<i", value)
    numbers = value.dtype.kind != "O"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + python2((0,)) + python2(b"b") + b"tR"
    name = b"i2" if numbers else b"O8"
    order = (3, b"<" if numbers else b"|", None, None, None, -1, -1, flags or (0 if numbers else 63))
    dtype = b"cnumpy\ndtype\n" + python2((name, 0, 1)) + b"R" + python2(order) + b"b"
    data = python2(value.tobytes()) if numbers else b"](" + b"".join(python2(item, flags) for item in value) + b"e"
    return empty + b"(" + python2(1) + python2(value.shape) + dtype + b"\x89" + data + b"tb"


@given(st.lists(st.tuples(ROWS, DTYPES, st.sampled_from("CF")), min_size=1, max_size=4))
def test_drawings_are_read_as_numpy_wrote_them(given: list[tuple[list[tuple[int, ...]], str, Any]]) -> None:
    drawings = [np.array(rows, dtype, order=order) for rows, dtype, order in given]
    archive = io.BytesIO()
    np.savez_compressed(archive, valid=objects(drawings))
    archive.seek(0)
    found = npz.drawings(archive, "valid")  # type: ignore[arg-type]
    assert [(each.dtype, each.tolist()) for each in found] == [(each.dtype, each.tolist()) for each in drawings]


def test_drawings_are_read_as_python_2_wrote_them(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "old.npz", b"\x80\x02" + python2(objects([DRAWING, DRAWING[:2]])) + b".", (2,))
    found = npz.drawings(path, "train")
    assert [each.tolist() for each in found] == [DRAWING.tolist(), DRAWING[:2].tolist()]
    with np.load(path, allow_pickle=True, encoding="latin1") as loaded:
        assert [each.tolist() for each in loaded["train"]] == [each.tolist() for each in found]


class Exploit:
    """Its pickle runs a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.does = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.does


@pytest.mark.parametrize(
    ("function", "asked"), [(os.mkdir, f"{os.name}.mkdir"), (Path.mkdir, "builtins.getattr"), (exec, "builtins.exec")]
)
def test_nothing_is_run(tmp_path: Path, function: Callable[..., Any], asked: str) -> None:
    proof = tmp_path / "proof"
    argument = {os.mkdir: str(proof), Path.mkdir: proof, exec: f"import os; os.mkdir({str(proof)!r})"}[function]
    path = write(tmp_path / "evil.npz", DRAWING, Exploit(function, argument))
    assert npz.count(path, "train") == 2
    with pytest.raises(ValueError, match=f"asks for (pathlib|{asked})"):
        npz.drawings(path, "train")
    assert not proof.exists()
    with np.load(path, allow_pickle=True) as loaded:  # the exploit is a real one
        loaded["train"]
    assert proof.exists()


@pytest.mark.parametrize("name", ["numpy load", "numpy.core.multiarray fromfile", "numpy core.multiarray._reconstruct"])
def test_other_names_of_numpy_are_refused(tmp_path: Path, name: str) -> None:
    program = f"c{name.replace(' ', chr(10))}\n)R.".encode()
    with pytest.raises(ValueError, match=name.replace(" ", ".")):
        npz.drawings(write_pickle(tmp_path / "evil.npz", program), "train")


def test_numbers_that_say_they_are_addresses_are_numbers(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "evil.npz", b"\x80\x02" + python2(objects([DRAWING]), flags=63) + b".")
    assert [each.tolist() for each in npz.drawings(path, "train")] == [DRAWING.tolist()]


def test_a_large_memo_takes_no_memory(tmp_path: Path) -> None:
    program = b"\x80\x02" + python2(objects([DRAWING])) + b"r" + struct.pack("<I", 1 << 26) + b"."
    path = write_pickle(tmp_path / "evil.npz", program)
    tracemalloc.start()
    try:
        assert len(npz.drawings(path, "train")) == 1
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_bytes_that_are_not_there_take_no_memory(tmp_path: Path) -> None:
    program = b"\x80\x05" + pickle.BYTEARRAY8 + struct.pack("<Q", 1 << 40) + b"."
    with pytest.raises(ValueError, match="its pickle holds a bytearray"):
        npz.drawings(write_pickle(tmp_path / "evil.npz", program), "train")


@given(st.integers(0, 400), st.binary(min_size=1, max_size=4), st.sampled_from([2, 4]))
def test_a_damaged_pickle_gives_drawings_or_an_error(place: int, damage: bytes, protocol: int) -> None:
    array = objects([DRAWING, DRAWING])
    program = b"\x80\x02" + python2(array) + b"." if protocol == 2 else pickle.dumps(array, protocol)
    place %= len(program)
    header, archive = io.BytesIO(), io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (2,)})
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("train.npy", header.getvalue() + program[:place] + damage + program[place + len(damage) :])
    try:
        found = npz.drawings(archive, "train")  # type: ignore[arg-type]
    except Exception:
        return
    assert len(found) == 2
    assert all(each is None or (each.dtype.kind in "iuf" and each.shape[1] == 3) for each in found)


@pytest.mark.parametrize(
    "item", [3, "text", None, DRAWING[:, :2], DRAWING[0], DRAWING[:1], objects([1, 2]), [[1, 2, 0], [1, 2, 1]]]
)
def test_what_is_no_drawing_is_none(tmp_path: Path, item: Any) -> None:
    found = npz.drawings(write(tmp_path / "a.npz", DRAWING, item), "train")
    assert [each is None for each in found] == [False, True]


@pytest.mark.parametrize("dtype", ["U3", "M8[s]", "i4,i4", "c16", "?"])
def test_arrays_of_other_things_are_refused(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(ValueError, match="not of numbers"):
        npz.drawings(write(tmp_path / "a.npz", np.zeros((2, 3), dtype)), "train")


def test_what_is_no_list_of_drawings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, train=np.zeros((2, 5, 3)))
    with pytest.raises(ValueError, match=r"float64 \(2, 5, 3\), not a list of drawings"):
        npz.count(path, "train")
    sound = b"\x80\x02" + python2(objects([DRAWING])) + b"."
    with pytest.raises(ValueError, match="says that it has 2 drawings, but has 1"):
        npz.drawings(write_pickle(path, sound, (2,)), "train")
    with pytest.raises(ValueError, match="something follows"):
        npz.drawings(write_pickle(path, sound + b"x"), "train")
    with pytest.raises(ValueError, match="no array 'valid'"):
        npz.drawings(path, "valid")


def test_a_split_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    file = zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED)
    with file as archive, archive.open("train.npy", "w") as member:
        for _ in range(17):
            member.write(bytes(1 << 24))
    with pytest.raises(ValueError, match="unpacks to 285,212,672 bytes, of"):
        npz.drawings(tmp_path / "a.npz", "train")


def test_a_drawing_that_comes_without_end_is_refused(tmp_path: Path) -> None:
    drawing = np.ones((1000, 3), np.int16)
    once, often = (write(tmp_path / f"{count}.npz", *[drawing] * count) for count in (1, 10_000))
    assert len(npz.drawings(once, "train")) == 1
    assert often.stat().st_size < 1 << 18
    with pytest.raises(ValueError, match="over and over"):
        npz.drawings(often, "train")


def test_a_wrong_checksum_is_noticed(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "a.npz", b"\x80\x02" + python2(objects([DRAWING])) + b".")
    path.write_bytes(path.read_bytes().replace(DRAWING.tobytes(), (DRAWING + 1).tobytes()))
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        npz.drawings(path, "train")
