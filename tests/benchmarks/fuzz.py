"""Coverage-guided fuzzing of one reader: mutants of good files, and of those mutants that reached new branches.

`pip install atheris`, then `python tests/benchmarks/fuzz.py READER SECONDS [FOLDER]`, on Linux. READER is the name of a
good file of `tests/test_hostile.py`, such as hand.style, or of one of the plugins' below. FOLDER/READER keeps the
mutants from which the next campaign begins; other files may be put there. Each must be read, or refused by a
`SeqdensError` of one sentence, in `SLOWEST` seconds and `MEMORY` bytes, without a warning, and without a program run
or a file opened elsewhere. The first for which that does not hold is kept in FOLDER and ends the campaign.

libFuzzer's lines tell how many were read, branches (cov), and branches by how often each was taken (ft). With `--quick`
each reader gets a few mutants made by chance, without atheris.
"""

from __future__ import annotations

import gzip
import random
import re
import resource
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from comparing import QUICK, command_line

if not QUICK:
    import atheris

    # What the loaders of an editable installation import, atheris cannot instrument.
    sys.meta_path[:] = [finder for finder in sys.meta_path if "_editable_" not in type(finder).__module__]

ROOT = Path(__file__).parents[2]
SLOWEST, MEMORY, LARGEST = 10, 1 << 30, 1 << 16  # seconds, bytes, bytes of a mutant
MUTANTS = 20  # of each reader's with --quick
READ_BY = ["seqdens", "seqdens_quickdraw", "seqdens_timeseries", "seqdens_unipen", "tomllib", "pickle"]
PLUGINS = ["quickdraw", "timeseries", "unipen"]

sys.path[:0] = [str(ROOT), str(ROOT / "tests"), *(str(ROOT / "plugins" / f"seqdens-{name}") for name in PLUGINS)]
with nullcontext() if QUICK else atheris.instrument_imports(include=READ_BY):
    import numpy as np
    import test_hostile
    from seqdens_quickdraw import QuickDraw
    from seqdens_timeseries.table import Table
    from seqdens_timeseries.text import texts_of
    from seqdens_unipen import InkML, Unipen
    from test_hostile import items_of

    from seqdens import hdf5
    from seqdens.errors import SeqdensError

TABLE = {"real": ("x", "y"), "category": {"colour": ["red", ""]}, "binary": ("on",), "end": True, "group": "who"}
Mutate = Callable[[bytes, int], bytes]  # the content, and how long it may become
READERS: dict[str, Callable[[Path], Any]] = {
    **{Path(name).name: read for name, read in test_hostile.READERS.items()},
    "apple.ndjson": lambda path: items_of(QuickDraw(path.parent, variants=2)),
    "apple.npz": lambda path: items_of(QuickDraw(path.parent)),
    "digits.tra": lambda path: items_of(Unipen(path.parent)),
    "page.inkml": lambda path: items_of(InkML(path.parent)),
    "table.csv": lambda path: items_of(Table(path, difference=("z",), **TABLE)),
    "table.npz": lambda path: items_of(Table(path, difference=("z",), **TABLE)),
    "drawn.csv": texts_of,
}
NDJSON = b"""{"word":"a","recognized":true,"key_id":"7","drawing":[[[0,3.5,9],[4,5,1],[0,17,33]],[[5],[6],[40]]]}
{"word":"a","recognized":false,"key_id":8,"drawing":[[[0,255],[4,5]],[[5,7,1],[6,0,1]]]}
"""
UNIPEN = b""".VERSION 1.0
.COORD X Y T
.WRITER_ID anna
.INCLUDE other.dat
.SEGMENT WORD 0-1,0:1-2:0 OK "a\\"b"
.SEGMENT DIGIT ? ? "8"
.COMMENT 8 12  224
.PEN_DOWN
 1 10 0
 2 20 1
.PEN_UP
.DT 100
.PEN_DOWN
 3 30 2 4 -4e1 3
 .5 +6. 4
.PEN_UP
 7 7 5
.START_SET two
"""
CSV = b"who,id,x,y,z,colour,on\np,a,1,2.5,3,red,true\np,a,,na,-4,,0\nq,b,1e3,2,3,red,1\nq,b,1,2,9007199254740993,,0\n"
PLAIN_LINE = b"""<?xml version="1.0" encoding="ISO-8859-1"?>
<WhiteboardCaptureSession>
<WhiteboardDescription>
<SensorLocation corner="top_left"/>
<DiagonallyOppositeCoords x="6512" y="1376"/>
<VerticallyOppositeCoords x="966" y="1376"/>
<HorizontallyOppositeCoords x="6512" y="787"/>
</WhiteboardDescription>
<StrokeSet>
<Stroke colour="black" start_time="769.05" end_time="769.64">
<Point x="895" y="992" time="769.05"/>
<Point x="-899" y="992" time="769.07"/>
</Stroke>
</StrokeSet>
</WhiteboardCaptureSession>
"""


def good_files(paths: Iterable[Path]) -> dict[str, list[bytes]]:
    """For each reader what to begin with."""
    good = {path.name: [path.read_bytes()] for path in paths}
    good["a01-000u-01.xml"].append(PLAIN_LINE)
    drawing = np.array([[3, 4, 0], [-1, 0, 1], [300, -2, 1]], np.int16)
    drawings = np.fromiter([drawing, drawing[1:].astype(float)], object)
    header, *rows = [line.split(",") for line in CSV.decode().replace(",,", ",0,").replace("na", "nan").splitlines()]
    columns = zip(*rows, strict=True)
    return good | {
        "apple.ndjson": [NDJSON],
        "apple.npz": [archive(train=drawings, valid=drawings[:1], test=drawings[:0])],
        "digits.tra": [UNIPEN, gzip.compress(UNIPEN)],
        "page.inkml": [test_hostile.INKML.encode()],
        "table.csv": [CSV],
        "table.npz": [archive(**{name: np.array(column) for name, column in zip(header, columns, strict=True)})],
        "drawn.csv": [b"record,step,byte category 256\n0,1,104\n0,2,105\n1,1,255\n"],
    }


def archive(**arrays: np.ndarray) -> bytes:
    file = BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def words(contents: list[bytes]) -> str:
    """A dictionary for libFuzzer: the tokens of `test_hostile`, and the words and numbers of these files."""
    found = {*test_hostile.TOKENS, *(word for content in contents for word in re.findall(rb"[\w.#:-]{2,}", content))}
    escaped = ("".join(map("\\x{:02x}".format, word)) for word in sorted(found) if len(word) < 60)
    return "".join(f'"{word}"\n' for word in escaped)


def mutator(name: str, good: bytes, plain: Mutate) -> Callable[[bytes, int, int], bytes] | None:
    """What changes files with a structure that `plain` would only break, by `plain` inside; None for others."""
    packed = dict.fromkeys(("apple.npz", "table.npz"), test_hostile.packed)

    def summed(content: bytes, chosen: int, change: test_hostile.Change) -> bytes:
        """A cache with a piece of HDF5 metadata changed where the good one has it, and its checksum."""
        pieces = test_hostile.metadata(good)
        start, end = pieces[chosen % len(pieces)]
        piece = change(content[start:end])[: end - start].ljust(end - start, b"\0")
        return content[:start] + piece + hdf5.lookup3(piece).to_bytes(4, "little") + content[end + 4 :]

    mend = {**test_hostile.MENDED, **packed, "cache.h5": summed}.get(name)
    if not mend:
        return None

    def mutate(content: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.8:
            with suppress(Exception):  # of a file that is none any more
                return mend(content, chance.randrange(256), lambda piece: plain(piece, len(piece) + 100))[:most]
        return plain(content, most)

    return mutate


def watched(folder: Path) -> list[tuple[str, Any]]:
    """To which is added what no reader may do: programs run, connections, files opened outside of `folder`."""
    done: list[tuple[str, Any]] = []
    ours = tuple(map(str, (folder, ROOT, sys.prefix, sys.base_prefix, *filter(None, sys.path))))
    forbidden = re.compile(r"os\.(system|exec|posix_spawn|fork|remove|rename|mkdir)|subprocess|socket|shutil")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        opened = event == "open" and isinstance(arguments[0], str) and not arguments[0].startswith(ours)
        if opened or forbidden.match(event):
            done.append((event, arguments))

    sys.addaudithook(hook)
    return done


class Subject(NamedTuple):
    """A reader, its good files, and the path at which it is given a file."""

    name: str
    good: list[bytes]
    path: Path

    def read(self, done: list[tuple[str, Any]], content: bytes) -> None:
        """Read `content`; raises what must not happen, of which `done` is told as well."""
        self.path.unlink(missing_ok=True)  # it may be mapped
        self.path.write_bytes(content)
        done.clear()
        try:
            READERS[self.name](self.path)
        except SeqdensError as error:
            test_hostile.assert_sentence(str(error))
        assert not done, done


def subjects(folder: Path) -> dict[str, Subject]:
    """Every reader's, by its name."""
    paths = {path.name: path for path in test_hostile.write_good(folder / "good").values()}
    found = {}
    for name, good in good_files(paths.values()).items():
        path = paths.get(name, folder / "read" / name / name)
        path.parent.mkdir(parents=True, exist_ok=True)
        found[name] = Subject(name, good, path)
    return found


def limited() -> None:
    """From now on memory is limited, and a warning is an error."""
    warnings.simplefilter("error")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, -1))


def main(reader: str, seconds: int, folder: str = "") -> None:
    own, kept = Path(tempfile.mkdtemp()), Path(folder or tempfile.mkdtemp())
    subject = subjects(own)[reader]
    corpus = kept / reader
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(subject.good):
        (corpus / f"good-{number}").write_bytes(content)
    (own / "words").write_text(words(subject.good))
    read = partial(subject.read, watched(own))
    for content in subject.good:
        read(content)
    limited()
    options = {
        "max_total_time": seconds,
        "timeout": SLOWEST,
        "rss_limit_mb": 2 * MEMORY >> 20,
        "max_len": LARGEST,
        "dict": own / "words",
        "artifact_prefix": f"{corpus}-",
        "print_final_stats": 1,
    }

    def plain(content: bytes, most: int) -> bytes:
        return atheris.Mutate(content, most)  # another function once `Fuzz` has begun

    arguments = [sys.argv[0], *(f"-{option}={value}" for option, value in options.items()), str(corpus)]
    atheris.Setup(arguments, read, custom_mutator=mutator(reader, subject.good[0], plain))
    atheris.Fuzz()


def quick() -> None:
    chance = random.Random(0)

    def plain(content: bytes, most: int) -> bytes:
        edits = [(chance.choice(test_hostile.KINDS), chance.random(), chance.random(), chance.randrange(256))]
        return test_hostile.mutant(content, edits)[:most]

    with tempfile.TemporaryDirectory() as folder:
        found = subjects(Path(folder))
        done = watched(Path(folder))
        limited()
        for name, subject in found.items():
            mutate = mutator(name, subject.good[0], plain) or (lambda content, most, seed: plain(content, most))
            for content in subject.good:
                subject.read(done, content)
                for seed in range(MUTANTS):
                    subject.read(done, mutate(content, LARGEST, seed))
            print(f"{name}: {len(subject.good)} good file(s), {MUTANTS} mutants of each")


if __name__ == "__main__":
    command_line(main, quick)
