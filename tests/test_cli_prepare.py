"""`seqdens prepare`: what it prints, and one sentence for each way to ask for what cannot be."""

import re

import numpy as np
import pytest
from click.testing import CliRunner

from seqdens import components
from seqdens.cache import Prepared
from seqdens.cli import cli
from seqdens.datasets.base import Dataset, Record, Skipped, Source

LINE = """<?xml version="1.0" encoding="ISO-8859-1"?>
<WhiteboardCaptureSession><StrokeSet>
<Stroke><Point x="1073" y="1058" time="1"/><Point x="1072" y="1085" time="2"/></Stroke>
<Stroke><Point x="1200" y="1000" time="3"/></Stroke>
</StrokeSet></WhiteboardCaptureSession>
"""
SIGNATURE = "3\n2933 5678 31275 0\n2933 5680 31285 1\n3001 5720 31295 1\n"


@pytest.fixture
def prepare(tmp_path):
    """Call with arguments of the command; returns its result, and keeps caches in `tmp_path / "cache"`."""

    def call(*arguments):
        where = () if "--cache" in arguments else ("--cache", str(tmp_path / "cache"))
        command = ["prepare", "--workers", "1", *map(str, arguments), *where]
        return CliRunner().invoke(cli, command, prog_name="seqdens")

    return call


def caches(tmp_path):
    return sorted((tmp_path / "cache").iterdir())


def file(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.fixture
def iam(tmp_path):
    """Twenty forms of one line with text, the last for validation, by lists beside the data."""
    root = tmp_path / "iam"
    forms = [f"a{n:02}-000u" for n in range(20)]
    for form in forms:
        file(root / "lineStrokes" / form[:3] / form[:7] / f"{form}-01.xml", LINE)
        file(root / "ascii" / form[:3] / form[:7] / f"{form}.txt", f"OCR:\n\nx\n\nCSR:\n\nform {form[1:3]}\n")
    lists = {"trainset": forms[:-1], "testset_v": forms[-1:], "testset_t": [], "testset_f": []}
    for name, chosen in lists.items():
        file(root / "splits" / f"{name}.txt", "".join(f" {form}\n" for form in chosen))
    return root


@pytest.fixture
def svc(tmp_path):
    for user in (1, 33, 37):
        for signature in (1, 21):
            file(tmp_path / "Task1" / f"U{user}S{signature}.TXT", SIGNATURE)
    return tmp_path / "Task1"


def test_the_embedded_data_set(prepare, tmp_path):
    result = prepare("hershey", "--set", "lines=12", "--set", "dataset.writers=4")
    assert result.exit_code == 0, result.output
    (path,) = caches(tmp_path)
    points = Prepared(path).points
    assert f"hershey (synthetic): 12 lines (6 train, 3 valid, 3 test), {points:,} points\n" in result.output
    assert result.output.endswith(f"Prepared at {path}\n")
    content, inode = path.read_bytes(), path.stat().st_ino
    again = prepare("hershey", "--set", "writers=4", "--set", "lines=12", "--strict")
    assert again.output == result.output
    assert (path.read_bytes(), path.stat().st_ino) == (content, inode)
    path.write_bytes(content[:999])
    rebuilt = prepare("hershey", "--set", "writers=4", "--set", "lines=12")
    assert f"Note: {path} is rebuilt: it is no complete cache of this version of seqdens (" in rebuilt.output
    assert caches(tmp_path) == [path]
    assert path.read_bytes() == content


@pytest.mark.parametrize("named", ["option", "setting"])
def test_lines_of_iamondb(prepare, iam, tmp_path, named):
    result = prepare("iamondb", *(("--data", iam) if named == "option" else ("--set", f"root={iam}")))
    assert result.exit_code == 0, result.output
    assert f"Note: split by the lists in {iam / 'splits'}, protocol 'graves'\n" in result.output
    assert "iamondb: 20 lines (19 train, 1 valid, 0 test), 40 points\n" in result.output
    data = Prepared(caches(tmp_path)[0])
    assert data.offsets(19).tolist() == [[-1, 27, 1], [128, -85, 1]]
    assert data.texts[19] == "form 19"


def test_signatures_of_svc(prepare, svc, tmp_path):
    result = prepare("svc", "--data", svc, "--set", 'channels=["time"]')
    assert result.exit_code == 0, result.output
    assert "svc: 6 signatures (2 train, 2 valid, 2 test), 12 points\n" in result.output
    data = Prepared(caches(tmp_path)[0])
    assert data.offsets(0).tolist() == [[0, -2, 10, 0, 0], [68, -40, 10, 1, 1]]
    assert data.labels[:2] == ["genuine", "forged"]


def test_the_option_for_the_folder_comes_before_the_setting(prepare, iam, tmp_path):
    result = prepare("iamondb", "--set", f"root={tmp_path / 'nowhere'}", "--data", iam)
    assert result.exit_code == 0, result.output


def test_a_damaged_file_is_named_and_strict_refuses_it(prepare, iam, tmp_path):
    damaged = iam / "lineStrokes" / "a03" / "a03-000" / "a03-000u-01.xml"
    damaged.write_text("<cut")
    result = prepare("iamondb", "--data", iam)
    assert result.exit_code == 0, result.output
    assert f"  skipped {damaged}: is not well-formed XML" in result.output
    assert re.search(r"iamondb: 19 lines \(.*\), 38 points, 1 skipped\n", result.output)
    for _ in range(2):  # the cache that is there, and a new one
        strict = prepare("iamondb", "--data", iam, "--strict")
        assert strict.exit_code == 1
        assert "Error: 1 of 20 items of iamondb could not be read, more than the 0.0%" in strict.output
        assert f"; the first: {damaged}: is not well-formed XML" in strict.output
        for path in caches(tmp_path):
            path.unlink()


def test_too_many_damaged_files_are_an_error(prepare, iam, tmp_path):
    for path in (iam / "lineStrokes").glob("a1*/*/*"):
        path.write_text("")
    result = prepare("iamondb", "--data", iam)
    assert result.exit_code == 1
    assert "Error: 10 of 20 items of iamondb could not be read" in result.output
    assert caches(tmp_path) == []


class Half(Dataset):
    """A few files in a hundred cannot be read."""

    def __init__(self, root=None):
        pass

    def sources(self):
        return [Source("all")]

    def read(self, source):
        yield from (Skipped(f"file {n} [bold]", "is empty") for n in range(9))
        yield from (Record(f"{n}", np.eye(3)) for n in range(291))


def test_of_many_skipped_a_few_are_shown(prepare, monkeypatch, tmp_path):
    monkeypatch.setattr(components, "_registered", [])
    components.register("datasets", "half", Half)
    result = prepare("half")
    assert result.exit_code == 0, result.output
    (path,) = caches(tmp_path)
    assert ", 9 skipped\n" in result.output
    shown = "".join(f"  skipped file {n} [bold]: is empty\n" for n in range(5))
    assert f"{shown}  ... and 4 more, listed in {path}\nPrepared at {path}\n" in result.output


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "Missing argument 'DATASET'"),
        (["hershey", "svc"], 2, "unexpected extra argument (svc)"),
        (["hershy"], 2, "there is no 'hershy' among the datasets; did you mean 'hershey'?"),
        (["hershey", "--set", "line=3"], 2, "'hershey' has no option 'line'; did you mean 'lines'?"),
        (["hershey", "--set", "training.epochs=3"], 2, "'hershey' has no option 'training.epochs'"),
        (["hershey", "--set", "lines"], 2, "setting 'lines' must read OPTION=VALUE."),
        (["hershey", "--set", "=3"], 2, "must read"),
        (["hershey", "--set", "lines=many"], 2, "option 'lines' of 'hershey' is 'many', but must be int"),
        (["hershey", "--set", "lines=0"], 2, "option 'lines' of hershey is 0"),
        (["hershey", "--set", "name=svc"], 2, "the data set's name is the argument DATASET"),
        (["hershey", "--data", "."], 2, "takes no data folder"),
        (["hershey", "--workers", "0"], 2, "Invalid value for '--workers'"),
        (["hershey", "--lines", "3"], 2, "No such option '--lines'"),
        (["iamondb"], 2, "iamondb needs --data DIR"),
        (["iamondb", "--data", "nowhere"], 1, "nowhere is not a folder"),
        (["iamondb", "--set", "root=5"], 1, "5 is not a folder"),
        (["iamondb", "--data", "empty"], 1, "empty holds no folder lineStrokes"),
        (["svc", "--data", "empty"], 1, "empty holds no"),
        (["hershey", "--set", "lines=3", "--cache", "file"], 1, "file is a file; choose another place."),
        (["hershey", "--set", "lines=3", "--cache", "file/below"], 1, "Not a directory; choose another place."),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(prepare, tmp_path, monkeypatch, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    result = prepare(*arguments)
    assert result.exit_code == status
    assert message in " ".join(result.output.split())
    assert "Error: " in result.output
    assert isinstance(result.exception, SystemExit)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["empty", "file"]
