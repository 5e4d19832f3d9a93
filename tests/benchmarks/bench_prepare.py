"""Preparing IAM-OnDB against one process of `xml.etree`: from line files and transcriptions to a file of offsets.

Their side is what a good plain script does: it finds the files, reads every line file with `xml.etree.ElementTree`,
takes differences in numpy, reads the transcriptions, and writes all of it as flat arrays of HDF5. Ours is
`prepare` into a fresh folder, in as many processes as there are cores; it checks every value besides. Both
find the files in the processor's file cache. Both files must hold equal numbers and texts.

`python tests/benchmarks/bench_prepare.py ROOT [ROUNDS] [FORMS]`; by default 290 forms, about 2,400 lines; 0 are all.
"""

from __future__ import annotations

import os
import re
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from shutil import copyfile

import h5py
import numpy as np
from comparing import command_line, compare, machine, report, report_ratio

from seqdens import components
from seqdens.cache import Prepared
from seqdens.datasets.iamondb import PLACEHOLDER
from seqdens.prepare import prepare


def texts_of(path: Path) -> list[str]:
    if not path.is_file():
        return []
    return re.split(r"\n|%{5,}", path.read_text("iso-8859-1").partition("CSR:")[2].strip())


def offsets_of(line: Path) -> np.ndarray:
    rows = [
        (int(point.get("x")), int(point.get("y")), point is stroke[-1])
        for stroke in ElementTree.parse(line).find("StrokeSet")
        for point in stroke
    ]
    points = np.array(rows, np.int32)
    return np.column_stack([np.diff(points[:, :2], axis=0), points[1:, 2]])


def plain_script(root: Path, target: Path) -> None:
    """Every line below `root` into flat arrays in `target`."""
    forms: dict[Path, list[Path]] = {}
    for line in sorted((root / "lineStrokes").rglob("*.xml")):
        forms.setdefault(line.parent.relative_to(root / "lineStrokes") / line.stem[:-3], []).append(line)
    ids, texts, offsets = [], [], []
    for form, lines in forms.items():
        written = texts_of(root / "ascii" / form.with_name(f"{form.name}.txt"))
        if [text.strip() for text in written] == [PLACEHOLDER]:
            continue
        texts += [text.strip() for text in written] if len(written) == len(lines) else [""] * len(lines)
        ids += [line.stem for line in lines]
        offsets += [offsets_of(line) for line in lines]
    with h5py.File(target, "w") as file:
        together = np.concatenate(offsets)
        file["starts"] = np.cumsum([0, *map(len, offsets)])
        file["reals"], file["states"] = together[:, :2].astype(np.int16), together[:, 2:].astype(np.int8)
        file["ids"], file["texts"] = ids, texts


def check_equal(theirs: Path, ours: Path) -> None:
    """That both hold the same lines, with equal offsets and texts."""
    prepared = Prepared(ours)
    with h5py.File(theirs) as file:
        for name in ("starts", "reals", "states"):
            assert np.array_equal(file[name], h5py.File(ours)[name]), name
        assert list(file["ids"].asstr()) == list(prepared.ids)
        assert list(file["texts"].asstr()) == list(prepared.texts)


def part(root: Path, folder: Path, forms: int) -> Path:
    """A folder of copies of all files of that many forms, evenly drawn; links out of it would be refused."""
    files = sorted((*root.glob("lineStrokes/*/*/*.xml"), *root.glob("ascii/*/*/*.txt")))
    names = sorted({path.stem[:-3] for path in files if path.suffix == ".xml"})
    chosen = set(names[:: max(1, len(names) // forms)] if forms else names)
    for path in files:
        if (path.stem[:-3] if path.suffix == ".xml" else path.stem) in chosen:
            copy = folder / path.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copyfile(path, copy)
    return folder


def main(root: Path, rounds: int = 5, forms: int = 290) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = part(root, folder / "data", forms)
        component = components.dataset("iamondb")
        prepared = prepare(component, data, folder=folder / "cache")
        sides = {
            "one process of xml.etree": lambda: plain_script(data, folder / "plain.h5"),
            "prepare": lambda: prepare(component, data, folder=folder / "cache", rebuild=True),
        }
        taken = compare(sides, rounds, warm_up=1)
        check_equal(folder / "plain.h5", prepared.path)
        megabytes = sum(path.stat().st_size for path in data.rglob("*.*") if path.is_file()) / 1e6
        print(f"{len(prepared):,} lines, {megabytes:.0f} MB, {os.cpu_count()} cores, {machine()}, {rounds} rounds")
        report(taken, megabytes, "MB")
        report_ratio("prepare IAM-OnDB", taken["prepare"], taken["one process of xml.etree"], 3)


LINE = """<?xml version="1.0" encoding="ISO-8859-1"?>
<WhiteboardCaptureSession>
  <WhiteboardDescription>
    <SensorLocation corner="top_left"/>
    <DiagonallyOppositeCoords x="6512" y="1376"/>
    <VerticallyOppositeCoords x="966" y="1376"/>
    <HorizontallyOppositeCoords x="6512" y="787"/>
  </WhiteboardDescription>
  <StrokeSet>
{strokes}
  </StrokeSet>
</WhiteboardCaptureSession>
"""


def made_up(root: Path, forms: int = 20, lines: int = 3) -> Path:
    """Return `root` with forms in the layout of IAM-OnDB; the second lacks a line of its text, the last has no text."""
    rng = np.random.default_rng(0)
    for number in range(forms):
        form = Path("a01") / f"a01-{number:03}" / f"a01-{number:03}u"
        text = "\n".join("some words" for _ in range(lines - (number == 1))) if number < forms - 1 else PLACEHOLDER
        written(root / "ascii" / form.with_suffix(".txt"), f"OCR:\n\nothers\n\nCSR:\n\n{text}\n")
        for line in range(1, lines + 1):
            strokes = "\n".join(map(stroke, rng.integers(0, 6000, (4, 20, 2))))
            written(root / "lineStrokes" / form.with_name(f"{form.name}-{line:02}.xml"), LINE.format(strokes=strokes))
    return root


def stroke(points: np.ndarray) -> str:
    rows = "".join(f'      <Point x="{x}" y="{y}" time="769.05"/>\n' for x, y in points)
    return f'    <Stroke colour="black" start_time="769.05" end_time="769.64">\n{rows}    </Stroke>'


def written(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, "iso-8859-1")


def quick() -> None:
    with tempfile.TemporaryDirectory() as folder:
        main(made_up(Path(folder)), rounds=2, forms=0)


if __name__ == "__main__":
    command_line(main, quick)
