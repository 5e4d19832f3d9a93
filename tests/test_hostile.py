"""Files made to do harm: each is read, or refused in one sentence, in little time and memory, and nothing in it is run.

Exploits are opened in a process of their own, of limited memory. Mutants of good files are read here: 40 of each by
default, as many as `SEQDENS_FUZZ` says otherwise.
"""

import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from shutil import copytree
from typing import Any, NamedTuple

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.optim import SGD

import seqdens
from seqdens import hdf5
from seqdens.cache import Prepared, Provenance, write
from seqdens.datasets.base import STROKE_END, Record, Skipped, X, Y
from seqdens.datasets.iamondb import IamOnDB
from seqdens.datasets.svc import SVC2004
from seqdens.errors import DataError, SeqdensError
from seqdens.export import load_ink, save_records
from seqdens.ink.svg import read_svg
from seqdens.model import SequenceModel
from seqdens.prepare import checked
from seqdens.styles import load_style
from seqdens.training import checkpoints
from seqdens.training.run_folder import Run, read_config

EXAMPLES = int(os.environ.get("SEQDENS_FUZZ", "40"))
POINTS = "".join(f'<Point x="{10 * n}" y="-{n}" time="1"/>' for n in range(5))
STROKES = f"<StrokeSet><Stroke>{POINTS}</Stroke></StrokeSet>"
LINE = f'<?xml version="1.0"?><WhiteboardCaptureSession>{STROKES}</WhiteboardCaptureSession>'
RECORD = np.array([[1, 2, 0], [3, -4, 1], [5, 6, 0], [1, 1, 1]], np.float32)
STYLE = {
    "format": "seqdens-style",
    "version": 1,
    "text": "ab",
    "source": "s",
    "units": "",
    "offsets": RECORD.tolist(),
}
CONFIG = """preset = "quick"
[dataset]
name = "hershey"
lines = 6
[training]
epochs = 3
learning_rate = 1e-3
"""


# Reading each kind of file


def read_line(path: Path) -> None:
    items_of(IamOnDB(path.parents[3]))


def read_signature(path: Path) -> None:
    items_of(SVC2004(path.parent, channels=("pressure",)))


def items_of(data: seqdens.Dataset) -> None:
    """Read all; what is skipped is raised as the sentence it is."""
    for source in data.sources():
        for read in data.read(source):
            item = read if isinstance(read, Skipped) else checked(read, data.columns)
            if isinstance(item, Skipped):
                raise DataError(f"{item.path} {item.reason}.")


def read_config_file(path: Path) -> None:
    from seqdens.components import experiment
    from seqdens.configuration import resolve

    resolve(experiment("handwriting"), config=read_config(path))


def read_cache(path: Path) -> None:
    data = Prepared(path)
    repr(data), list(data.ids), list(data.texts), data.skipped, data.split("train")
    for index in range(len(data)):
        data.offsets(index)


def read_weights(path: Path) -> None:
    SequenceModel.load(path)


def read_state(path: Path) -> None:
    model = little()
    checkpoints.load(path, model, SGD(model.parameters(), 0.1, 0.9), {"encoder": "one"})


def read_metrics(path: Path) -> None:
    Run(path.parent).read_metrics()


READERS: dict[str, Callable[[Path], Any]] = {
    "lineStrokes/a01/a01-000/a01-000u-01.xml": read_line,
    "ascii/a01/a01-000/a01-000u.txt": read_line,
    "U1S1.TXT": read_signature,
    "drawing.svg": read_svg,
    "drawing.inkml": load_style,
    "hand.style": load_style,
    "ink.npz": load_ink,
    "ink.csv": load_ink,
    "ink.json": load_ink,
    "config.toml": read_config_file,
    "metrics.csv": read_metrics,
    "cache.h5": read_cache,
    "best.safetensors": read_weights,
    "trainer.pt": read_state,
}


def little() -> SequenceModel:
    encoder, head = (
        seqdens.encoder("stacked-lstm", hidden_size=2, layers=1),
        seqdens.head("gmm-bernoulli", components=1),
    )
    return SequenceModel((X, Y, STROKE_END), encoder, head, mean=[0, 0], std=[1, 1], origin={"dataset": "hershey"})


def write_good(folder: Path) -> dict[str, Path]:
    """A good file of each kind, in a folder of its own."""
    paths = {name: folder / name.replace("/", "-").replace(".", "-") / name for name in READERS}
    for name in READERS:
        if name.startswith(("lineStrokes", "ascii")):
            for part, content in ((READERS_LINE, LINE), (READERS_TEXT, "CSR:\n\nsome text\n")):
                written(paths[name].parents[3] / part, content.encode())
    written(paths["U1S1.TXT"], b"3\n2933 5678 31275 0 1 2 3\n2933 5680 31285 1 1 2 3\n3001 5720 31295 1 1 2 3\n")
    written(paths["drawing.svg"], SVG.encode())
    written(paths["drawing.inkml"], INKML.encode())
    written(paths["hand.style"], json.dumps(STYLE).encode())
    for name in ("ink.npz", "ink.csv", "ink.json"):
        save_records([RECORD, RECORD[:2]], paths[name])
    written(paths["config.toml"], CONFIG.encode())
    written(paths["metrics.csv"], b"epoch,train_nats_per_point\n1,2.5\n2,1.5\n")
    about = Provenance.of("made", 1, {"a": 1}, (X, Y, STROKE_END), synthetic=True, sources="")
    write(paths["cache.h5"], about, [Record("é", RECORD.astype(int), text="ab"), Skipped("b.txt", "is empty")])
    model = little()
    model.save(paths["best.safetensors"])
    optimiser = SGD(model.parameters(), 0.1, 0.9)
    checkpoints.save(paths["trainer.pt"], model, optimiser, checkpoints.Progress(), {"encoder": "one"})
    return paths


READERS_LINE, READERS_TEXT = list(READERS)[:2]
SVG = """<svg xmlns="http://www.w3.org/2000/svg"><g transform="translate(3,4) rotate(30 1 2)">
<path d="M1 2h3v4c1 2 3 4 5 6s1 2 3 4q1 2 3 4t5 6a1 2 30 0 1 5 6z m1 1l0 2"/><line x1="1" y1="2" x2="3" y2="4px"/>
<polyline points="1,2 3,4"/><polygon points="1,2 3,4 5,6" transform="matrix(1 2 3 4 5 6) skewX(3) scale(2)"/>
</g></svg>"""
INKML = """<ink xmlns="http://www.w3.org/2003/InkML">
<traceFormat><channel name="X"/><channel name="Y" orientation="-ve"/>
<channel name="T"/></traceFormat><annotation type="truth">hi</annotation>
<trace>1125 18432 1,'23'43 1,"7"-8 *,3-5 #1F</trace><trace type="penUp">1 2 3</trace>
<trace continuation="end">5 6 ?</trace></ink>"""


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, bytes]]:
    paths = write_good(tmp_path_factory.mktemp("good"))
    return {name: (path, path.read_bytes()) for name, path in paths.items()}


def test_the_good_files_are_read(good: dict[str, tuple[Path, bytes]]) -> None:
    for name, (path, content) in good.items():
        path.write_bytes(content)
        READERS[name](path)


# Mutants

TOKENS = [
    *(b"1e999", b"-1", b"nan", b"9" * 30, b"9" * 5000, b"0", b"#" + b"F" * 400, b"1e-320", b"65536", b"4294967296"),
    *(b"\0", b"\x1b[2J", b"\xff\xfe", "\u202e".encode(), b"\n", b"\r", b",", b'"', b"<", b"&a;", b"]]>", b"<!--", b"{"),
    *(b"<!DOCTYPE ink SYSTEM '/dev/zero'>", b"<![CDATA[", b"<?a?>", b"[" * 2000, b"{" * 2000, b"(" * 2000, b"</g>"),
    *(b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7, b"PK\x05\x06", b"{'shape':", b"true", b"null", b"''", b"a.b.c"),
]
KINDS = ["flip", "set", "cut", "insert", "repeat", "copy", "number", "end"]
edits = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.floats(0, 1, exclude_max=True),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=6,
)


Change = Callable[[bytes], bytes]


def mutant(content: bytes, changes: list[tuple[str, float, float, int]]) -> bytes:
    """`content` after these changes, each of a kind, at two places, with a byte."""
    for kind, first, second, byte in changes:
        at, to = sorted((int(first * len(content)), int(second * len(content))))
        piece = content[at : min(to, at + 200)]
        if kind == "flip" and content:
            content = content[:at] + bytes([content[at] ^ 1 << byte % 8]) + content[at + 1 :]
        elif kind == "set":
            content = content[:at] + bytes([byte]) + content[at + 1 :]
        elif kind == "cut":
            content = content[:at] + content[at + 1 + byte :]
        elif kind == "insert":
            content = content[:at] + TOKENS[byte % len(TOKENS)] + content[at:]
        elif kind == "repeat":
            content = content[:at] + piece * (byte % 40) + content[at:]
        elif kind == "copy":
            content = content[:to] + piece + content[to + len(piece) :]
        elif kind == "number":  # in place of the next number
            start = next((place for place in range(at, len(content)) if content[place : place + 1].isdigit()), at)
            end = next((p for p in range(start, len(content)) if not content[p : p + 1].isdigit()), len(content))
            content = content[:start] + TOKENS[byte % 10] + content[end:]
        else:
            content = content[:at]
    return content


def packed(content: bytes, chosen: int, change: Change) -> bytes:
    """An archive with a member of it changed, and checksums that are right."""
    with zipfile.ZipFile(BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = list(members)[chosen % len(members)]
    members[name] = change(members[name])
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return file.getvalue()


def headed(content: bytes, chosen: int, change: Change) -> bytes:
    """Safetensors with the header changed, and its length."""
    size = int.from_bytes(content[:8], "little")
    header = change(content[8 : 8 + size])
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def summed(content: bytes, changes: list[tuple[str, float, float, int]]) -> bytes:
    """The mutant of a piece of HDF5 metadata, with its checksum."""
    pieces = metadata(content)
    for kind, first, second, byte in changes:
        start, end = pieces[int(first * len(pieces))]
        at = start + 4 + int(second * (end - start - 4))
        new = {"flip": bytes([content[at] ^ 1 << byte % 8]), "set": bytes([byte]), "cut": bytes(8), "end": b"\xff" * 8}
        piece = new.get(kind, pieces[byte % len(pieces)][0].to_bytes(8, "little"))
        content = content[:at] + piece[: end - at] + content[min(end, at + len(piece)) :]
        content = content[:end] + hdf5.lookup3(content[start:end]).to_bytes(4, "little") + content[end + 4 :]
    return content


@cache
def metadata(content: bytes) -> list[tuple[int, int]]:
    """Where pieces of HDF5 metadata begin, and where their checksums do."""
    starts = [at for at in range(0, len(content), 8) if content[at : at + 4] in PIECES]
    return [
        (start, next(filter(partial(summed_at, content, start), range(start + 8, len(content))))) for start in starts
    ]


def summed_at(content: bytes, start: int, end: int) -> bool:
    return hdf5.lookup3(content[start:end]) == int.from_bytes(content[end : end + 4], "little")


PIECES = (b"\x89HDF", b"OHDR", b"FRHP", b"BTHD", b"BTLF")
MENDED = {"ink.npz": packed, "trainer.pt": packed, "best.safetensors": headed}


def inside(mend: Callable[[bytes, int, Change], bytes]) -> Callable[..., bytes]:
    """`mutant` of what is in a file that stays whole."""
    return lambda content, changes: mend(content, changes[0][3], partial(mutant, changes=changes))


MUTATORS = [
    *((name, mutant) for name in READERS),
    *((name, inside(mend)) for name, mend in MENDED.items()),
    ("cache.h5", summed),
]


@pytest.mark.parametrize(("name", "mutate"), MUTATORS)
def test_a_mutant_is_read_or_refused_in_a_sentence(
    good: dict[str, tuple[Path, bytes]], name: str, mutate: Callable[..., bytes]
) -> None:
    path, content = good[name]

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(edits)
    def read(changes: list[tuple[str, float, float, int]]) -> None:
        path.write_bytes(mutate(content, changes))
        try:
            READERS[name](path)
        except SeqdensError as error:
            assert_sentence(str(error))

    read()
    path.write_bytes(content)


def assert_sentence(text: str) -> None:
    assert text.endswith(".")
    assert text.isprintable()
    assert not re.search("allocate|MemoryError", text)


# Exploits


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.mark}'",)


def doctype(declared: str, inside: str = "") -> bytes:
    """A line file with a document type, and `inside` among its points."""
    return LINE.replace("?>", f"?><!DOCTYPE a {declared}>", 1).replace("</Stroke>", f"{inside}</Stroke>").encode()


def nested_lists(depth: int = 60) -> list[Any]:
    """A few bytes as a pickle, and more texts than there are atoms."""
    nested: list[Any] = ["ha"]
    for _ in range(depth):
        nested = [nested] * 10
    return nested


def state(path: Path, **parts: Any) -> Callable[[], None]:
    return lambda: torch.save(torch.load(path, weights_only=True) | parts, path)


def described(path: Path, **changes: Any) -> None:
    """Change the description in a weights file, keeping its weights."""
    with safetensors.safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["seqdens"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    about["encoder"]["options"] |= changes.pop("options", {})
    safetensors.torch.save_file(weights, path, {"seqdens": json.dumps(about | changes)})


def header(**changes: Any) -> Callable[[Path], None]:
    """Another entry in the header of safetensors for its first tensor."""

    def change(path: Path) -> None:
        content = path.read_bytes()
        size = int.from_bytes(content[:8], "little")
        entries = json.loads(content[8 : 8 + size])
        entries[min(entries.keys() - {"__metadata__"})] |= changes
        new = json.dumps(entries).encode()
        path.write_bytes(len(new).to_bytes(8, "little") + new + content[8 + size :])

    return change


def array(name: str, content: bytes) -> Callable[[Path], None]:
    """Another array in an NPZ file, packed."""

    def change(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            members = {each: archive.read(each) for each in archive.namelist()} | {f"{name}.npy": content}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for each, member in members.items():
                archive.writestr(each, member)

    return change


def npy(shape: str, descr: str = "'<f4'", rest: bytes = bytes(48)) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + rest


def zip_bomb(path: Path, member: str, size: int = 3 << 30, start: bytes = b"") -> None:
    """A member that unpacks to `start` and `size` bytes of zeros, in an archive of some."""
    packer, piece = zlib.compressobj(9, zlib.DEFLATED, -15), 1 << 24
    first, once = (packer.compress(each) + packer.flush(zlib.Z_FULL_FLUSH) for each in (start, bytes(piece)))
    content = first + once * (size // piece)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, old in members.items():
            archive.writestr(name, content if name == member else old)
        entry = archive.getinfo(member)
        entry.compress_type, entry.file_size = zipfile.ZIP_DEFLATED, size
    with path.open("r+b") as file:
        file.seek(entry.header_offset + 8)
        file.write(struct.pack("<H", zipfile.ZIP_DEFLATED))
        file.seek(entry.header_offset + 22)
        file.write(struct.pack("<I", size))


def claimed(path: Path, member: str, packed: int, unpacked: int) -> None:
    """A member that unpacks to 3 GiB, and other sizes in the directory of the archive."""
    zip_bomb(path, member, start=npy("(5000, 3)", rest=b""))
    content = bytearray(path.read_bytes())
    struct.pack_into("<2I", content, content.rindex(member.encode()) - 26, packed, unpacked)
    path.write_bytes(content)


def hdf5_file(*pieces: bytes) -> bytes:
    """The pieces, each with its checksum, the first of them the header of the root, and last what has none."""
    body = b"".join(map(with_checksum, pieces[:-1])) + pieces[-1]
    return (
        with_checksum(hdf5.SIGNATURE + b"\2\10\10\0" + struct.pack("<4Q", 0, hdf5.NOWHERE, 48 + len(body), 48)) + body
    )


def with_checksum(content: bytes) -> bytes:
    return content + hdf5.lookup3(content).to_bytes(4, "little")


def same_piece() -> bytes:
    """A header in 17 pieces, of which 16 are the same 240 kB."""
    piece = b"OCHK" + struct.pack("<BHx60000x", 0, 60_000) * 4
    messages = struct.pack("<BHxQQ", hdf5.CONTINUATION, 16, 48 + 10 + 320 + 4, len(piece) + 4) * 16
    return hdf5_file(b"OHDR\2\2" + struct.pack("<I", len(messages)) + messages, piece, b"")


def long_names(count: int = 20_000, length: int = 0x7000) -> bytes:
    """A group of `count` members whose names, each of more than `length` bytes, overlap in the file."""
    links = [struct.pack("<BBH4s", 1, 1, length + number % 97, b"%04d" % (number % 10_000)) for number in range(count)]
    places = (struct.pack("<5xIH", 8 * number, length + 104) for number in range(count))
    root = b"OHDR\2\2" + struct.pack("<IBHx2xQQ", 22, hdf5.LINK_INFO, 18, 84, 84 + 146)
    heap = b"FRHP\0\7\0\0\0" + struct.pack("<123xQH", 84 + 146 + 38 + 6 + 11 * count + 4, 0)
    index = b"BTHD\0\5" + struct.pack("<4xB5xQH8x", 11, 84 + 146 + 38, count)
    return hdf5_file(root, heap, index, b"BTLF\0\5" + b"".join(places), b"".join(links) + b"a" * 2 * length)


def objects(path: Path, mark: Path) -> None:
    np.savez(path, offsets=np.array([Bomb(mark)], object), starts=[0, 1], columns=["x"])


class Exploit(NamedTuple):
    """What is done to a good file, and what the refusal must say; it gets the file, a mark not to be made, a pipe."""

    file: str
    make: Callable[[Path, Path, Path], Any]
    said: str


def replaced(content: bytes | str) -> Callable[[Path, Path, Path], Any]:
    return lambda path, mark, pipe: path.write_bytes(content.encode() if isinstance(content, str) else content)


def changed(change: Callable[[Path], Any]) -> Callable[[Path, Path, Path], Any]:
    return lambda path, mark, pipe: change(path)


LINE_FILE, TEXT_FILE = READERS_LINE, READERS_TEXT
XML_BOMB = "[<!ENTITY b0 'ha'>" + "".join(f"<!ENTITY b{n} '{f'&b{n - 1};' * 10}'>" for n in range(1, 12)) + "]"
QUADRATIC = f"[<!ENTITY b '{'ha' * 100_000}'>]"
CURVES = '<path d="M0 0t1 1t2 2t3 3"/>'
WEIGHTS, STATE, CACHE, NPZ = "best.safetensors", "trainer.pt", "cache.h5", "ink.npz"
EXPLOITS = {
    "a pickle as weights": Exploit(
        WEIGHTS, lambda path, mark, _: path.write_bytes(pickle.dumps(Bomb(mark))), "no seqdens model"
    ),
    "a checkpoint as weights": Exploit(
        WEIGHTS, lambda path, mark, _: torch.save({"a": Bomb(mark)}, path), "no seqdens model"
    ),
    "a pickle as trainer state": Exploit(
        STATE, lambda path, mark, _: path.write_bytes(pickle.dumps(Bomb(mark), 2)), "not a zip file"
    ),
    "a program in trainer state": Exploit(
        STATE, lambda path, mark, _: state(path, model=Bomb(mark))(), "holds more than plain data"
    ),
    "a pickle as a cache": Exploit(
        CACHE, lambda path, mark, _: path.write_bytes(pickle.dumps(Bomb(mark))), "no complete cache"
    ),
    "objects in arrays": Exploit(NPZ, lambda path, mark, _: objects(path, mark), "holds objects"),
    "a pickle as arrays": Exploit(NPZ, lambda path, mark, _: path.write_bytes(pickle.dumps(Bomb(mark))), "no NPZ"),
    "a program as a header": Exploit(
        NPZ,
        lambda path, mark, _: array("offsets", npy(f"(__import__('os').system('touch {mark}'), 3)"))(path),
        "holds objects or is damaged",
    ),
    "cells without number": Exploit(
        WEIGHTS, changed(lambda path: described(path, options={"hidden_size": 10**9})), "asks for far more numbers"
    ),
    "cells beyond number": Exploit(
        WEIGHTS, changed(lambda path: described(path, options={"hidden_size": 10**18})), "asks for far more numbers"
    ),
    "layers without number": Exploit(
        WEIGHTS, changed(lambda path: described(path, options={"layers": 10**9})), "asks for far more numbers"
    ),
    "categories without number": Exploit(
        WEIGHTS, changed(lambda path: described(path, columns=[["a", "category", 10**12]])), "has size 1000000000000"
    ),
    "control characters in a column": Exploit(
        WEIGHTS, changed(lambda path: described(path, columns=[["\x1b[2J", "real"]])), "no control characters"
    ),
    "a scaling of nothing": Exploit(WEIGHTS, changed(lambda path: described(path, std=[0, 1])), "std not above 0"),
    "a header beyond the file": Exploit(WEIGHTS, replaced(b"\xff" * 7 + b"\x7f{}"), "header too large"),
    "weights of any shape": Exploit(WEIGHTS, changed(header(shape=[10**9, 10**9])), "no seqdens model"),
    "weights that overlap": Exploit(WEIGHTS, changed(header(data_offsets=[4, 20])), "no seqdens model"),
    "weights from before the file": Exploit(WEIGHTS, changed(header(data_offsets=[-8, 8])), "no seqdens model"),
    "a deep description": Exploit(
        WEIGHTS, changed(lambda path: safetensors.torch.save_file({}, path, {"seqdens": "[" * 10**5})), "Recursion"
    ),
    "lists of lists as identity": Exploit(
        STATE, changed(lambda path: state(path, identity={"encoder": nested_lists()})()), "the same over and over"
    ),
    "lists of lists as optimiser": Exploit(
        STATE, changed(lambda path: state(path, optimiser={"state": {0: nested_lists()}})()), "the same over and over"
    ),
    "one number for a million million": Exploit(
        STATE, changed(lambda path: state(path, model={"a": torch.zeros(1).expand(10**12)})()), "has 4 bytes"
    ),
    "a state that unpacks without end": Exploit(
        STATE, changed(lambda path: zip_bomb(path, "archive/data/0")), "it unpacks to 3,2"
    ),
    "an array that unpacks without end": Exploit(
        NPZ, changed(lambda path: zip_bomb(path, "offsets.npy")), "unpacks to 3,221,225,472 bytes"
    ),
    "an array that is packed into what is not there": Exploit(
        NPZ, changed(lambda path: claimed(path, "offsets.npy", 1 << 28, 3 << 30)), "packed bytes are not there"
    ),
    "an array that says that it is small": Exploit(
        NPZ, changed(lambda path: claimed(path, "offsets.npy", 1 << 10, 1 << 16)), "Bad CRC-32"
    ),
    "a header of one piece many times": Exploit(CACHE, replaced(same_piece()), "are more than 1,048,576 bytes"),
    "a thousand million points": Exploit(NPZ, changed(array("offsets", npy("(1000000000, 3)"))), "but has 48 bytes"),
    "points beyond number": Exploit(NPZ, changed(array("offsets", npy("(4611686018427387904, 4)"))), "but has 48"),
    "a text without end": Exploit(NPZ, changed(array("columns", npy("(1,)", "'<U99999999'"))), "but has 48 bytes"),
    "points of nothing": Exploit(NPZ, changed(array("offsets", npy("(10**18, 3)", "'<U0'", b""))), "is damaged"),
    "texts of nothing": Exploit(
        NPZ, changed(array("columns", npy("(1000000000000,)", "'<U0'", b""))), "but has 0 bytes"
    ),
    "characters beyond Unicode": Exploit(
        NPZ, changed(array("columns", npy("(3,)", "'>U4'", b"\xff" * 48))), "holds objects or is damaged"
    ),
    "a deep header": Exploit(NPZ, changed(array("offsets", npy("(" * 9000))), "holds objects or is damaged"),
    "a category of a thousand million": Exploit(
        "ink.csv", replaced("record,step,a category 999999999\n0,1,-5\n"), "must be a whole number"
    ),
    "deep JSON": Exploit("ink.json", replaced('[{"a": ' + "[" * 10**5), "recursion"),
    "a style of points without end": Exploit(
        "hand.style",
        replaced(json.dumps(STYLE).replace("[[", f"[{'[0,0,0],' * 4_190_000}[")),
        "must have numbers (T, 3)",
    ),
    "a deep style": Exploit("hand.style", replaced('{"a": ' * 10**5), "recursion"),
    "deep TOML": Exploit("config.toml", replaced("a = " + "[" * 10**5), "recursion"),
    "a deep key": Exploit("config.toml", replaced("a" + ".a" * 10**5 + " = 1"), "a key has more than 32 parts"),
    "a deep quoted key": Exploit("config.toml", replaced("x = {a" + ' . "a"' * 10**5 + " = 1}"), "more than 32 parts"),
    "a number without end": Exploit("config.toml", replaced("a = " + "9" * 10**5), "limit"),
    "TOML without end": Exploit("config.toml", replaced("#" * (2 << 20)), "is larger than 1 MiB"),
    "a thousand million laughs": Exploit(LINE_FILE, replaced(doctype(XML_BOMB, "&b11;")), "XML"),
    "laughs in a number": Exploit(LINE_FILE, replaced(doctype(XML_BOMB).replace(b'"10"', b'"&b11;"')), "XML"),
    "long entities, often": Exploit(LINE_FILE, replaced(doctype(QUADRATIC, "&b;" * 100_000)), "XML"),
    "another file in a line": Exploit(
        LINE_FILE, lambda path, mark, pipe: path.write_bytes(doctype(f"[<!ENTITY b SYSTEM '{pipe}'>]", "&b;")), "XML"
    ),
    "a document type from a pipe": Exploit(
        LINE_FILE, lambda path, mark, pipe: path.write_bytes(doctype(f"SYSTEM '{pipe}'", "<a/>")), "not a point"
    ),
    "declarations from a pipe": Exploit(
        LINE_FILE,
        lambda path, mark, pipe: path.write_bytes(doctype(f"[<!ENTITY % p SYSTEM '{pipe}'> %p;]", "<a/>")),
        "XML",
    ),
    "deep XML": Exploit(LINE_FILE, replaced("<a>" * 10**5), "XML"),
    "a line without end": Exploit(LINE_FILE, changed(lambda path: os.truncate(path, 1 << 40)), "is larger than 16 MiB"),
    "a text that is a pipe": Exploit(TEXT_FILE, lambda path, mark, pipe: linked(path, pipe), "leads out of the folder"),
    "a line that is a pipe": Exploit(LINE_FILE, changed(lambda path: pipe_at(path)), "is no regular file"),
    "a line that is itself": Exploit(LINE_FILE, lambda path, *_: linked(path, path), "cannot be read"),
    "a line from elsewhere": Exploit(
        LINE_FILE, lambda path, *_: linked(path, "/etc/passwd"), "leads out of the folder"
    ),
    "a signature from elsewhere": Exploit(
        "U1S1.TXT", lambda path, *_: linked(path, "/etc/passwd"), "leads out of the folder"
    ),
    "an endless signature": Exploit("U1S1.TXT", lambda path, *_: linked(path, "/dev/zero"), "leads out of the folder"),
    "a thousand million points declared": Exploit("U1S1.TXT", replaced("1000000000\n1 2 3 0\n"), "but 1 points follow"),
    "another file in a drawing": Exploit(
        "drawing.svg",
        lambda path, mark, pipe: path.write_text(f"<!DOCTYPE svg [<!ENTITY b SYSTEM '{pipe}'>]><svg>&b;</svg>"),
        "declares entities",
    ),
    "a drawing of a pipe": Exploit(
        "drawing.svg",
        lambda path, mark, pipe: path.write_text(f"<!DOCTYPE svg SYSTEM '{pipe}'><svg/>"),
        "draws no <path>",
    ),
    "moves without end": Exploit("drawing.svg", replaced(f'<svg><path d="{"M0 0" * 10**6}"/></svg>'), "100,000 moves"),
    "curves without end": Exploit("drawing.svg", replaced(f"<svg>{CURVES * 50_000}</svg>"), "500,000 points"),
    "numbers without size": Exploit(
        "drawing.svg", replaced('<svg><path d="M0 0a1e200 1e-200 0 0 1 1 1e200"/></svg>'), "svg"
    ),
    "a line without numbers": Exploit("drawing.svg", replaced('<svg><line x1="1e400"/></svg>'), "million units"),
    "points of many sizes": Exploit(
        "drawing.inkml", replaced(f"<ink><trace>{'1 ' * 10**6}{',1' * 10**6}</trace></ink>"), "500,000 points"
    ),
    "a point of many channels": Exploit(
        "drawing.inkml", replaced(f"<ink><trace>{'1 ' * 10**6}{',1' * 10**5}</trace></ink>"), "4,000 characters"
    ),
    "a number of a thousand digits": Exploit(
        "drawing.inkml", replaced(f"<ink><trace>#{'F' * 1000} 1</trace></ink>"), "too large"
    ),
    "losses that are none": Exploit("metrics.csv", replaced("epoch\n1,2,3\n"), "holds no losses"),
}


def linked(path: Path, target: Path | str) -> None:
    path.unlink()
    path.symlink_to(target)


def pipe_at(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


OPENER = """
import json, resource, signal, sys, warnings
warnings.simplefilter("error")
sys.path.insert(0, sys.argv[1])
import test_hostile
from pathlib import Path
from seqdens.errors import SeqdensError

def stop(*_):
    raise TimeoutError

signal.signal(signal.SIGALRM, stop)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), -1))
for line in sys.stdin:
    name, file, path = json.loads(line)
    signal.alarm(30)
    try:
        test_hostile.READERS[file](Path(path))
        outcome = "read", ""
    except SeqdensError as error:
        outcome = "refused", str(error)
    except BaseException as error:
        outcome = "failed", repr(error)
    signal.alarm(0)
    print(json.dumps([name, *outcome]), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """What becomes of each exploit, opened one after another in a process of limited memory."""
    if not sys.platform.startswith("linux"):
        pytest.skip("memory is limited, and told, as Linux does")
    folder = tmp_path_factory.mktemp("exploits")
    os.mkfifo(folder / "pipe")
    asked = []
    good = write_good(folder / "good")
    for number, (name, exploit) in enumerate(EXPLOITS.items()):
        own = good[exploit.file].relative_to(folder / "good").parts[0]
        copy = folder / str(number)
        copytree(folder / "good" / own, copy / own)
        path = copy / good[exploit.file].relative_to(folder / "good")
        exploit.make(path, folder / "exploded", folder / "pipe")
        asked.append(json.dumps([name, exploit.file, str(path)]))
    done = subprocess.run(
        [sys.executable, "-c", OPENER, str(Path(__file__).parent)],
        input="\n".join(asked),
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])},
    )
    assert not (folder / "exploded").exists()
    told = {name: (outcome, said) for name, outcome, said in map(json.loads, done.stdout.splitlines())}
    assert told.keys() == EXPLOITS.keys(), done.stderr
    return told


@pytest.mark.parametrize("name", EXPLOITS)
def test_an_exploit_is_refused_in_a_sentence(outcomes: dict[str, tuple[str, str]], name: str) -> None:
    outcome, said = outcomes[name]
    assert outcome == "refused", said
    assert_sentence(said)
    assert EXPLOITS[name].said in said
    assert "root:" not in said


def test_names_in_a_cache_that_overlap_are_not_all_read() -> None:
    with pytest.raises(ValueError, match="metadata are more than 1,048,576 bytes"):
        hdf5.File(BytesIO(long_names()))["starts"]


def test_the_programs_in_the_exploits_do_run_where_they_are_let(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert (tmp_path / "exploded").exists()
