"""Reading the HDF5 files that `seqdens.cache` writes, and no others, without the HDF5 library.

The library crashes on files that are made to crash it, and follows links, external files and plugins of filters that
a file names. What is read here is the part of the format (HDF5 File Format Specification 3.0) that a cache needs:
groups, plain contiguous arrays of numbers and short attributes, each with its checksum; anything else is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, BinaryIO, NamedTuple

import numpy as np

MOST = 1 << 20  # bytes of metadata that are read of a file, those read twice counted twice; a cache has some thousand
_MASK = 2**32 - 1
NOWHERE = 2**64 - 1  # the address of what is not there
SIGNATURE = b"\x89HDF\r\n\x1a\n"

# kinds of messages in the header of an object
SPACE, LINK_INFO, TYPE, LINK, LAYOUT, ATTRIBUTE, CONTINUATION, ATTRIBUTE_INFO = 1, 2, 3, 6, 8, 12, 16, 21
PASSED_OVER = {0: "nothing", 5: "fill value", 10: "group info", 18: "time"}
KNOWN = {SPACE, LINK_INFO, TYPE, LINK, LAYOUT, ATTRIBUTE, CONTINUATION, ATTRIBUTE_INFO, *PASSED_OVER}
_FLOATS: dict[np.dtype[Any], bytes] = {
    np.dtype("<f4"): bytes((0x20, 31, 0, 4, 0, 0, 0, 0, 0, 32, 0, 23, 8, 0, 23, 127, 0, 0, 0)),
    np.dtype("<f8"): bytes((0x20, 63, 0, 8, 0, 0, 0, 0, 0, 64, 0, 52, 11, 0, 52, 255, 3, 0, 0)),
}


class Array(NamedTuple):
    """A contiguous array of the file: where it begins, in bytes, and what it is."""

    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return prod(self.shape)


class Message(NamedTuple):
    """A piece of an object's header."""

    kind: int
    content: Bytes


class Bytes:
    """Bytes that are read from the front; raises `ValueError` where there are no more."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    @property
    def left(self) -> int:
        return len(self.content) - self.place

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise ValueError("a piece of its HDF5 metadata ends too early")
        self.place += size
        return self.content[self.place - size : self.place]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def expect(self, wanted: bytes, what: str) -> None:
        if self.take(len(wanted)) != wanted:
            raise ValueError(f"its HDF5 {what} is not of the kind that a cache has")


class File:
    """The arrays and, in `attrs`, the attributes of an opened file; raises `ValueError` where it is no cache's file."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._size, self._left = raw.seek(0, 2), MOST
        self._groups: dict[int, dict[str, int]] = {}  # the addresses of their members
        head = self._checked(0, 44)
        head.expect(SIGNATURE, "signature")
        if head.number(1) not in (2, 3) or head.take(2) != bytes((8, 8)):
            raise ValueError("its HDF5 format is not that of a cache")
        head.take(1)
        base, _, end, self._root = (head.number(8) for _ in range(4))
        if base or end > self._size:
            raise ValueError(f"it has {self._size} bytes of {end}")
        self.attrs = dict(_attribute(message.content) for message in self._messages(self._root, ATTRIBUTE))

    def __getitem__(self, name: str) -> Array:
        """The array of that path; raises `KeyError` where there is nothing of that name."""
        address = self._root
        for part in name.split("/"):
            address = self._members(address)[part]
        found = {message.kind: message.content for message in self._messages(address, SPACE, TYPE, LAYOUT)}
        if len(found) < 3:
            raise ValueError(f"{name!r} is no array")
        dtype, shape = _dtype(found[TYPE]), _shape(found[SPACE])
        layout = found[LAYOUT]
        if layout.number(1) not in (3, 4) or layout.number(1) != 1:
            raise ValueError(f"{name!r} is not contiguous in the file")
        offset, size = layout.number(8), layout.number(8)
        if dtype.kind not in "iuf" or size != prod(shape) * dtype.itemsize or (size and offset + size > self._size):
            raise ValueError(f"{name!r} says that it is {dtype} {shape} in {size} bytes at {offset}")
        return Array(offset if size else 0, dtype, shape)

    def _at(self, address: int, size: int) -> Bytes:
        if address + size > self._size:
            raise ValueError(f"its HDF5 metadata have {size} bytes at {address}")
        if size > self._left:
            raise ValueError(f"its HDF5 metadata are more than {MOST:,} bytes")
        self._left -= size
        self._raw.seek(address)
        return Bytes(self._raw.read(size))

    def _checked(self, address: int, size: int) -> Bytes:
        """Bytes that are followed by their checksum."""
        found = self._at(address, size + 4)
        content, checksum = found.take(size), found.number(4)
        if lookup3(content) != checksum:
            raise ValueError(f"its HDF5 metadata at {address} are damaged")
        return Bytes(content)

    def _messages(self, address: int, *kinds: int) -> list[Message]:
        """Those of these kinds in the header of the object at `address`."""
        head = self._at(address, 6)
        head.expect(b"OHDR\2", "object header")
        flags = head.number(1)
        before = 6 + 16 * bool(flags & 32) + 4 * bool(flags & 16)
        width = 1 << (flags & 3)
        first = self._checked(address, before + width + self._at(address + before, width).number(width))
        first.take(before + width)
        pieces, found = [first], list[Message]()
        for piece in pieces:  # which grow
            while piece.left >= 4 + 2 * bool(flags & 4):
                kind, size, shared = piece.number(1), piece.number(2), piece.number(1)
                piece.take(2 * bool(flags & 4))
                content = Bytes(piece.take(size))
                if kind not in KNOWN or shared & 2:
                    raise ValueError(f"its HDF5 metadata hold a message {kind:#x}, which no cache has")
                if kind == CONTINUATION:
                    place, length = content.number(8), content.number(8)
                    pieces.append(self._checked(place, max(length - 4, 4)))
                    pieces[-1].expect(b"OCHK", "object header")
                elif kind == ATTRIBUTE_INFO:
                    _expect_no_dense_attributes(content)
                elif kind in kinds:
                    found.append(Message(kind, content))
        return found

    def _members(self, address: int) -> dict[str, int]:
        if address not in self._groups:
            self._groups[address] = dict(self._links(address))
        return self._groups[address]

    def _links(self, address: int) -> Iterator[tuple[str, int]]:
        """Name and address of each member of a group."""
        for kind, content in self._messages(address, LINK, LINK_INFO):
            if kind == LINK:
                yield _link(content)
                continue
            content.expect(b"\0", "group")
            content.take(8 * (content.number(1) & 1))
            heap, index = content.number(8), content.number(8)
            if heap != NOWHERE:
                yield from self._dense_links(heap, index)

    def _dense_links(self, heap: int, index: int) -> Iterator[tuple[str, int]]:
        """Those in a fractal heap of one block, whose index is a B-tree of one leaf."""
        head = self._checked(heap, 142)
        head.expect(b"FRHP\0\7\0\0\0", "heap")  # version, heap IDs of 7 bytes, no filters
        head.take(123)
        block, rows = head.number(8), head.number(2)
        tree = self._checked(index, 34)
        tree.expect(b"BTHD\0\5", "index")  # version, links by name
        tree.take(4)
        tree.expect(bytes((11, 0, 0, 0)), "index")  # bytes of a record, depth
        tree.take(2)
        leaf, count = tree.number(8), tree.number(2)
        if rows:
            raise ValueError("a group of its HDF5 metadata is larger than those of a cache")
        records = self._checked(leaf, 6 + 11 * count)
        records.expect(b"BTLF\0\5", "index")
        for _ in range(count):
            records.take(5)  # hash, and kind of the heap ID
            place, length = records.number(4), records.number(2)
            yield _link(self._at(block + place, length))


def _link(content: Bytes) -> tuple[str, int]:
    content.expect(b"\1", "link")
    flags = content.number(1)
    if flags & 8 and content.number(1):
        raise ValueError("its HDF5 metadata hold a link to elsewhere")
    content.take(8 * bool(flags & 4) + bool(flags & 16))
    name = content.take(content.number(1 << (flags & 3)))
    return name.decode(), content.number(8)


def _attribute(content: Bytes) -> tuple[str, Any]:
    content.expect(b"\3\0", "attribute")
    name, dtype, space = (content.number(2) for _ in range(3))
    content.take(1)
    named = content.take(name).rstrip(b"\0").decode()
    kind, shape = _dtype(Bytes(content.take(dtype))), _shape(Bytes(content.take(space)))
    values = np.frombuffer(content.take(prod(shape) * kind.itemsize), kind).reshape(shape)
    return named, values if shape else values.item()


def _expect_no_dense_attributes(content: Bytes) -> None:
    content.expect(b"\0", "attribute")
    content.take(2 * (content.number(1) & 1))
    if content.number(8) != NOWHERE:
        raise ValueError("its attributes are stored as those of a cache are not")


def _shape(content: Bytes) -> tuple[int, ...]:
    content.expect(b"\2", "dataspace")
    rank, _, kind = content.number(1), content.number(1), content.number(1)
    if kind > 1:
        raise ValueError("its HDF5 metadata hold an array of nothing")
    return tuple(content.number(8) for _ in range(rank))


def _dtype(content: Bytes) -> np.dtype[Any]:
    """A number's type, that of a text of fixed length, or of the truth, which h5py stores as an enumeration."""
    kind, flags, size = content.number(1) & 15, content.take(3), content.number(4)
    described, properties = content.content[1:], content.content[8:12]
    if kind == 0 and size in (1, 2, 4, 8) and properties == bytes((0, 0, 8 * size, 0)) and not flags[0] & ~8:
        return np.dtype(f"<{'i' if flags[0] & 8 else 'u'}{size}")
    if kind == 3 and 0 < size < MOST:
        return np.dtype(f"S{size}")
    if kind == 8 and size == 1:
        return np.dtype(bool)
    for dtype, wanted in _FLOATS.items():
        if kind == 1 and described[: len(wanted)] == wanted:
            return dtype
    raise ValueError("its HDF5 metadata hold a type of numbers that no cache has")


def lookup3(content: bytes) -> int:
    """The checksum of HDF5's metadata: Jenkins' hash of 2006.

    >>> lookup3(b""), hex(lookup3(b"Four score and seven years ago"))
    (3735928559, '0x17770551')
    """
    a = b = c = 0xDEADBEEF + len(content) & _MASK
    words = np.frombuffer(content + bytes(-len(content) % 12), "<u4").tolist()
    for start in range(0, len(words), 3):
        a, b, c = a + words[start] & _MASK, b + words[start + 1] & _MASK, c + words[start + 2] & _MASK
        if start + 3 < len(words):
            for by in (4, 6, 8, 16, 19, 4):
                a, b, c = b, c + b & _MASK, (a - c & _MASK) ^ _rotated(c, by)
        else:
            for by in (14, 11, 25, 16, 4, 14, 24):
                a, b, c = b, (c ^ b) - _rotated(b, by) & _MASK, a
            c = b
    return c


def _rotated(word: int, by: int) -> int:
    return (word << by | word >> 32 - by) & _MASK
