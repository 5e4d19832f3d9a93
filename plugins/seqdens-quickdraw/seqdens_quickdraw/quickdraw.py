"""Quick, Draw!: drawings of a word by players of Google's game, in each form in which they are published.

Raw and simplified ndjson of https://github.com/googlecreativelab/quickdraw-dataset, and the npz of sketch-rnn (Ha and
Eck 2018, A Neural Representation of Sketch Drawings). T points of a drawing, D columns of a point.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import unquote

import numpy as np

from seqdens import Column, DataError, Dataset, Record, Skipped, Source, UsageError
from seqdens.files import check_file
from seqdens_quickdraw import ndjson, npz
from seqdens_quickdraw.strokes import SIDE, Strokes, bend, of_stroke3, scale, simplify, to_points

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")

BLOCK = 1 << 22  # bytes of an ndjson file that are read as one source
BLOCK_OF_DRAWINGS = 20_000  # of an npz file, whose split is unpacked anew for each
FILE = re.compile(r"(?:full_(?:raw|simplified)_|sketchrnn_)?(.+?)(?:\.full)?\.(?:ndjson|npz)", re.IGNORECASE)
EXPECTED = "a folder of Quick, Draw! files such as apple.ndjson, full_raw_apple.ndjson or sketchrnn_apple.npz"


@dataclass(frozen=True)
class Block(Source):
    """Bytes of an ndjson file, or drawings of a split of an npz file."""

    start: int = 0
    end: int = 0


class QuickDraw(Dataset):
    """Drawings of one or many words, one record each: `text` and `group` are the word.

    `root` is a folder of ndjson and npz files, one for each word, whose name it is (`full_raw_`, `sketchrnn_` and
    `.full` are no part of it). Columns are x, y, y down as in the files, stroke_end and sequence_end. Simplified
    drawings are whole numbers of 0 to 255; raw ones, in pixels of any screen, are brought to that size and, as
    Google did for the simplified, to the fewest points whose polyline is as near as `epsilon` to all.

    The split of an npz file is its own. Drawings of ndjson are split by their key, so that one stays where it is in a
    larger collection.

    Options:
        words: those to read, none for all in the folder
        recognised: only drawings that the game recognised, which ndjson alone tells
        limit: of each file, or of each split of an npz file, only as many drawings from its beginning, 0 for all
        epsilon: how far a point may be off that is left out of a raw drawing, in 255ths of its longer side
        time: a further column after y, milliseconds since the first point, which raw drawings alone have
        held_out: share of ndjson drawings not trained on, half valid and half test; 0 leaves out those of npz files
        variants: how many there are of each training drawing: itself, and for a small collection bent copies
    """

    record_name: ClassVar[str] = "drawing"

    def __init__(
        self,
        root: Path | None = None,
        *,
        words: tuple[str, ...] = (),
        recognised: bool = False,
        limit: int = 0,
        epsilon: float = 2.0,
        time: bool = False,
        held_out: float = 0.1,
        variants: int = 1,
    ) -> None:
        if root is None:
            raise UsageError(f"quickdraw needs --data DIR (in Python, root=DIR): {EXPECTED}.")
        if len(set(words)) < len(words):
            raise UsageError(f"option 'words' of quickdraw is {', '.join(words)}, but must name each word once.")
        bounds = {"limit": (limit, 0, math.inf), "epsilon": (epsilon, 0, SIDE), "held_out": (held_out, 0, 1)}
        for name, (value, least, most) in (bounds | {"variants": (variants, 1, math.inf)}).items():
            if not least <= value <= most:
                to = f" and at most {most:g}" if most < math.inf else ""
                raise UsageError(f"option {name!r} of quickdraw is {value}, but must be at least {least}{to}.")
        self.root, self.words, self.recognised, self.limit = Path(root), tuple(words), recognised, limit
        self.epsilon, self.time, self.held_out, self.variants = epsilon, time, held_out, variants
        times = (Column("time", "real", difference=True),) if time else ()
        self.columns = (
            Column("x", "real", difference=True),
            Column("y", "real", difference=True),
            *times,
            Column("stroke_end", "binary", role="stroke_end"),
            Column("sequence_end", "binary", role="sequence_end"),
        )

    def sources(self) -> list[Source]:
        """Blocks of the files, which are not read for this.

        Raises `DataError` for a folder without such files or without one of the words, for a word with two files,
        and for an npz file where only drawings are wanted of which it does not tell.
        """
        files = self._files()
        if missing := [word for word in self.words if word not in files]:
            raise DataError(f"{self.root} has no drawings of {missing[0]!r}; it has {', '.join(files)}.")
        return [block for word in self.words or files for block in self._blocks(files[word])]

    def read(self, source: Source) -> Iterator[Record | Skipped]:
        """The drawings of a block; a line or an array that is none is skipped, and so is a file that is none."""
        assert isinstance(source, Block)
        path = source.paths[0]
        read = self._read_npz if _is_npz(path) else self._read_ndjson
        try:
            check_file(path, self.root, sys.maxsize)
            yield from read(path, source)
        except ValueError as error:
            yield Skipped(str(path), str(error))
        except OSError as error:
            yield Skipped(str(path), f"cannot be read: {error.strerror or error}")

    def _files(self) -> dict[str, Path]:
        """The file of each word."""
        if not self.root.is_dir():
            raise DataError(f"{self.root} is not a folder; name {EXPECTED}.")
        files: dict[str, Path] = {}
        for path in sorted(self.root.iterdir()):
            if (match := FILE.fullmatch(path.name)) and path.is_file():
                word = unquote(match[1])
                if word in files:
                    raise DataError(f"{self.root} has {word!r} twice, {files[word].name} and {path.name}; keep one.")
                files[word] = path
        if not files:
            raise DataError(f"{self.root} holds no drawings; name {EXPECTED}.")
        return files

    def _blocks(self, path: Path) -> Iterator[Block]:
        if not _is_npz(path):
            for start, end in _ranges(self._size(path), BLOCK):
                yield Block(f"{path.name} {start}-{end}", (path,), start=start, end=end)
            return
        for option in ("recognised", "time"):
            if getattr(self, option):
                raise DataError(f"option {option!r} of quickdraw is true, but {path} does not tell; use ndjson files.")
        for split in SPLITS if self.held_out else SPLITS[:1]:
            for start, end in _ranges(self._count(path, split), BLOCK_OF_DRAWINGS):
                yield Block(f"{path.name} {split} {start}-{end}", (path,), split, start, end)

    def _size(self, path: Path) -> int:
        """How many bytes of an ndjson file are read."""
        try:
            if not self.limit:
                return path.stat().st_size
            with path.open("rb") as file:
                return ndjson.end_of_lines(file, self.limit)
        except OSError:  # reading will report it
            return 0

    def _count(self, path: Path, split: Split) -> int:
        """How many drawings of a split of an npz file are read."""
        try:
            count = npz.count(path, split)
        except Exception:  # reading will report it
            return 0
        return min(count, self.limit or count)

    def _read_ndjson(self, path: Path, block: Block) -> Iterator[Record | Skipped]:
        with path.open("rb") as file:
            if not block.end:
                yield Skipped(str(path), "is empty")
            for offset, line in ndjson.lines(file, block.start, block.end):
                try:
                    yield from self._of_line(line)
                except ValueError as error:
                    yield Skipped(f"{path}, byte {offset}", str(error))

    def _of_line(self, line: bytes) -> Iterable[Record]:
        if not line.strip():
            return ()
        drawing, strokes = ndjson.parse(line)
        if self.recognised and not drawing.recognized:
            return ()
        key = str(drawing.key_id)
        return self._records(key, drawing.word, split_of(key, self.held_out), strokes)

    def _read_npz(self, path: Path, block: Block) -> Iterator[Record | Skipped]:
        match = FILE.fullmatch(path.name)
        word = unquote(match[1]) if match else ""
        try:
            found = npz.drawings(path, block.split)
        except OSError:
            raise
        except Exception as error:  # what a damaged pickle raises is anything
            yield Skipped(str(path), f"{block.split} cannot be read: {' '.join(str(error).split()) or repr(error)}")
            return
        for index, rows in enumerate(found[block.start : block.end], block.start):
            name = f"{word}-{block.split}-{index}"
            try:
                if rows is None:
                    raise ValueError("is not rows of three numbers")
                yield from self._records(name, word, block.split, of_stroke3(rows))
            except ValueError as error:
                yield Skipped(f"{path}, {block.split}[{index}]", str(error))

    def _records(self, key: str, word: str, split: Split, strokes: Strokes) -> list[Record]:
        """A drawing and its variants."""
        if sum(map(len, strokes)) < 2:
            raise ValueError("it has one point: nothing to predict")
        timed = strokes[0].shape[1] == 3
        if self.time and not timed:
            raise ValueError("it has no times, which only raw drawings have")
        strokes = scale(strokes) if timed else strokes
        records = [Record(key, self._points(strokes, timed), split, text=word, group=word)]
        for variant in range(1, self.variants if split == "train" else 1):
            bent = bend(strokes, np.random.default_rng((digest(key), variant)))
            records.append(Record(f"{key}/{variant}", self._points(bent, timed), split, text=word, group=word))
        return records

    def _points(self, strokes: Strokes, timed: bool) -> np.ndarray:
        if timed and self.epsilon:
            strokes = [simplify(stroke, self.epsilon) for stroke in strokes]
        return to_points([stroke[:, : 2 + self.time] for stroke in strokes])


def split_of(key: str, held_out: float) -> Split:
    """By a hash of a drawing's key."""
    place = (digest(key) + 0.5) / 2**64
    return "train" if place > held_out else "valid" if place > held_out / 2 else "test"


def digest(text: str) -> int:
    """A number that depends on `text` alone, on any machine."""
    return int.from_bytes(sha256(text.encode(errors="backslashreplace")).digest()[:8])


def _is_npz(path: Path) -> bool:
    return path.suffix.lower() == ".npz"


def _ranges(size: int, step: int) -> Iterator[tuple[int, int]]:
    """(start, end) of steps up to `size`; one that is empty where there is nothing."""
    return ((start, min(start + step, size)) for start in range(0, max(size, 1), step))
