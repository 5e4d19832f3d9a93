"""Coverage-guided fuzzing of one reader: mutants of good files, and of those mutants that reached new branches.

`pip install atheris`, then `python tests/benchmarks/fuzz.py READER SECONDS [FOLDER]`, on Linux. READER is the name of a
good file of `tests/test_hostile.py`, such as hand.style, or of one of the plugins' below. FOLDER/READER keeps the
mutants from which the next campaign begins; other files may be put there. Each must be read, or refused by a
`SeqdensError` of one sentence, in `SLOWEST` seconds and `MEMORY` bytes, without a warning, and without a program run
or a file opened elsewhere. The first for which that does not hold is kept in FOLDER and ends the campaign.

libFuzzer's lines tell how many were read, branches (cov), and branches by how often each was taken (ft).
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
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import atheris

# What the loaders of an editable installation import, atheris cannot instrument.
sys.meta_path[:] = [finder for finder in sys.meta_path if "_editable_" not in type(finder).__module__]

ROOT = Path(__file__).parents[2]
SLOWEST, MEMORY, LARGEST = 10, 1 << 30, 1 << 16  # seconds, bytes, bytes of a mutant
READ_BY = ["seqdens", "seqdens_quickdraw", "seqdens_timeseries", "seqdens_unipen", "tomllib", "pickle"]
PLUGINS = ["quickdraw", "timeseries", "unipen"]

sys.path[:0] = [str(ROOT), str(ROOT / "tests"), *(str(ROOT / "plugins" / f"seqdens-{name}") for name in PLUGINS)]
with atheris.instrument_imports(include=READ_BY):
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


def mutator(name: str, good: bytes) -> Callable[[bytes, int, int], bytes] | None:
    """What changes files with a structure that bytes at random would only break; None for others."""
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
                change = lambda piece: atheris.Mutate(piece, len(piece) + 100)  # noqa: E731
                return mend(content, chance.randrange(256), change)[:most]
        return atheris.Mutate(content, most)

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


def main(name: str, seconds: int, folder: Path) -> None:
    own = Path(tempfile.mkdtemp())
    paths = {path.name: path for path in test_hostile.write_good(own / "good").values()}
    good, path = good_files(paths.values())[name], paths.get(name, own / "read" / name)
    path.parent.mkdir(exist_ok=True)
    (folder / name).mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(good):
        (folder / name / f"good-{number}").write_bytes(content)
    (own / "words").write_text(words(good))
    done = watched(own)

    def read(content: bytes) -> None:
        path.unlink(missing_ok=True)  # it may be mapped
        path.write_bytes(content)
        done.clear()
        try:
            READERS[name](path)
        except SeqdensError as error:
            test_hostile.assert_sentence(str(error))
        assert not done, done

    for content in good:
        read(content)
    warnings.simplefilter("error")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, -1))
    options = {
        "max_total_time": seconds,
        "timeout": SLOWEST,
        "rss_limit_mb": 2 * MEMORY >> 20,
        "max_len": LARGEST,
        "dict": own / "words",
        "artifact_prefix": f"{folder / name}-",
        "print_final_stats": 1,
    }
    arguments = [sys.argv[0], *(f"-{option}={value}" for option, value in options.items()), str(folder / name)]
    atheris.Setup(arguments, read, custom_mutator=mutator(name, good[0]))
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp()))
