"""From a data set to its cache: where it lies, when it is rebuilt, what is skipped, and what a failure leaves."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import h5py
import numpy as np
import pytest

import seqdens
from seqdens.cache import Prepared
from seqdens.components import CORE
from seqdens.datasets.base import STROKE_END, Column, Dataset, Record, Skipped, Source, X
from seqdens.errors import DataError, SeqdensError, UsageError
from seqdens.prepare import AHEAD, cache_folder, checked, cores, load, prepare
from seqdens.registry import Component, Provider
from seqdens.shards import all_of

HERE = Path(__file__).parents[1]


class Odd(Exception):
    """Cannot be unpickled: its constructor takes more than its arguments."""

    def __init__(self, one, two):
        super().__init__(one)


def read_or_fail(path):
    """The numbers in a file, or what its text says should happen."""
    text = path.read_text()
    if text.startswith("refuse"):
        raise UsageError("choose other numbers")
    if text.startswith("raise"):
        raise Odd("it is odd", 2)
    if text.startswith("interrupt"):
        raise KeyboardInterrupt
    if text.startswith("exit"):
        os._exit(3)
    return [int(number) for number in text.split()]


class Numbers(Dataset):
    """One record a file: the numbers in it are x, y is their index."""

    synthetic: ClassVar[bool] = False
    reader_version: ClassVar[int] = 1
    notes = ("numbers are only numbers",)

    def __init__(self, root=None, *, scale: int = 1):
        self.root, self.scale = root, scale

    def sources(self):
        if not self.root.is_dir():
            raise DataError(f"{self.root} is no folder.")
        splits = {"v": "valid", "s": "test"}
        return [Source(p.stem, (p,), splits.get(p.name[0], "train")) for p in sorted(self.root.glob("*.txt"))]

    def read(self, source):
        (self.root / f"{source.name}.read").touch()
        try:
            x = np.array(read_or_fail(source.paths[0])) * self.scale
        except (ValueError, FileNotFoundError) as error:
            yield Skipped(str(source.paths[0]), str(error))
            return
        ends = np.arange(len(x)) == len(x) - 1
        yield Record(source.name, np.column_stack([x, np.arange(len(x)), ends]), source.split, f"text {source.name}")


def numbers(**options):
    return Component("datasets", "numbers", options, Provider("datasets", "numbers", Numbers, "test 1"))


@pytest.fixture
def root(tmp_path):
    """Twelve training records, a validation and a test one."""
    folder = tmp_path / "data"
    folder.mkdir()
    for index in range(12):
        (folder / f"t{index:02}.txt").write_text(" ".join(str(index * n % 17) for n in range(5 + index)))
    (folder / "v.txt").write_text("1 2 4")
    (folder / "s.txt").write_text("1 2 9")
    return folder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


class Notes(list):
    def about_rebuilding(self):
        return [note for note in self if "is rebuilt" in note]


@pytest.fixture
def build(root, folder):
    """Call to prepare; returns the data and what was said about rebuilding."""

    def prepared(**settings):
        notes = Notes()
        options = settings.pop("options", {})
        data = prepare(numbers(**options), root, folder=folder, note=notes.append, workers=1, **settings)
        return data, notes.about_rebuilding()

    return prepared


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_records_become_offsets(build, root, folder):
    data, rebuilt = build()
    assert (len(data), rebuilt, data.provenance.synthetic) == (14, [], False)
    assert [len(data.split(split)) for split in ("train", "valid", "test")] == [12, 1, 1]
    assert data.offsets(13).tolist() == [[1, 1, 0], [2, 1, 1]]
    assert data.texts[13] == "text v"
    assert data.path.parent == folder


def test_a_second_time_nothing_is_read(build, root):
    first, _ = build()
    for path in root.glob("*.read"):
        path.unlink()
    second, rebuilt = build()
    assert (second.path, rebuilt, list(root.glob("*.read"))) == (first.path, [], [])


def test_options_and_folders_have_their_own_files(build, root, folder, tmp_path):
    paths = {build()[0].path, build(options={"scale": 2})[0].path}
    other = tmp_path / "other"
    root.rename(other)
    paths.add(prepare(numbers(), other, folder=folder, workers=1).path)
    assert len(paths) == len(os.listdir(folder)) == 3


def test_a_default_said_aloud_is_the_same_file(build):
    assert build()[0].path == build(options={"scale": 1})[0].path


def add_a_file(root, patch):
    (root / "t99.txt").write_text("1 2 3")


def rename_a_file(root, patch):
    (root / "t00.txt").rename(root / "t00x.txt")


def lengthen_a_file(root, patch):
    (root / "t00.txt").write_text("1 2 3 4 5 6 7 8")


def lose_a_file(root, patch):
    (root / "t00.txt").unlink()


def new_reader(root, patch):
    patch.setattr(Numbers, "reader_version", 2)


def new_columns(root, patch):
    patch.setattr(Numbers, "columns", (X, Column("index", "real", difference=True), STROKE_END))


def now_synthetic(root, patch):
    patch.setattr(Numbers, "synthetic", True)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (add_a_file, "the files' names or sizes have changed"),
        (rename_a_file, "the files' names or sizes have changed"),
        (lengthen_a_file, "the files' names or sizes have changed"),
        (lose_a_file, "the files' names or sizes have changed"),
        (new_reader, "reader_version 1 is now 2."),
        (new_columns, "columns "),
        (now_synthetic, "synthetic False is now True"),
    ],
)
def test_a_cache_of_other_provenance_is_rebuilt_and_the_difference_named(build, root, monkeypatch, change, difference):
    before, _ = build()
    content = before.path.read_bytes()
    change(root, monkeypatch)
    after, rebuilt = build()
    assert after.path == before.path
    assert len(rebuilt) == 1
    assert difference in rebuilt[0]
    assert str(after.path) in rebuilt[0]
    assert after.path.read_bytes() != content
    assert build()[1] == []


def test_it_is_rebuilt_when_asked_for(build):
    before, _ = build()
    made = before.path.stat().st_ino
    assert build()[0].path.stat().st_ino == made
    assert build(rebuild=True)[0].path.stat().st_ino != made


def test_what_cannot_be_sent_to_the_processes_that_read_is_one_sentence(root, folder, monkeypatch):
    monkeypatch.setattr(Numbers, "notes", property(lambda self: setattr(self, "f", lambda: 3) or ()))
    with pytest.raises(SeqdensError, match=r"the data set cannot be sent to the processes that read it: .*lambda"):
        prepare(numbers(), root, folder=folder, workers=2)


@pytest.mark.parametrize(("owner", "told"), [("test 1", True), (CORE, False)])
def test_newer_code_of_a_package_is_told(root, folder, monkeypatch, owner, told):
    component = Component("datasets", "numbers", {}, Provider("datasets", "numbers", Numbers, owner))
    code, notes = root / "code.py", []
    code.touch()
    monkeypatch.setitem(sys.modules, Numbers.__module__, SimpleNamespace(__file__=str(code)))
    data = prepare(component, root, folder=folder, workers=1, note=notes.append)
    prepare(component, root, folder=folder, workers=1, note=notes.append)
    assert set(notes) == set(Numbers.notes)
    os.utime(code, (data.path.stat().st_mtime + 1,) * 2)
    prepare(component, root, folder=folder, workers=1, note=notes.append)
    newer = f"the code of numbers ({owner}) is newer than {data.path}; if it reads otherwise now: seqdens prepare"
    assert any(note.startswith(newer) for note in notes) == told


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ((), "numbers has no columns"),
        ((X, X, STROKE_END), "numbers has 2 columns 'x', but names must differ"),
        ((X, Column("turn", "float"), STROKE_END), "column 'turn' of numbers is 'float', but must be 'real', 'binary'"),
        ((X, Column("colour", "category", 0), STROKE_END), "column 'colour' of numbers has size 0"),
    ],
)
def test_columns_that_are_none_are_refused_before_anything_is_read(root, folder, monkeypatch, columns, said):
    monkeypatch.setattr(Numbers, "columns", columns)
    with pytest.raises(UsageError, match=said):
        prepare(numbers(), root, folder=folder)
    assert not list(root.glob("*.read"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"split": "validation"}, "split is 'validation', but must be train or valid or test"),
        ({"id": 3}, "id is 3, but must be a text"),
        ({"text": None}, "text is None, but must be a text"),
        ({"group": b"anne"}, "group is b'anne', but must be a text"),
    ],
)
def test_a_record_that_is_not_as_declared_is_skipped_with_the_reason(change, reason):
    whole = Record("a", np.array([[0, 0, 0], [1, 1, 1]]))
    assert isinstance(checked(whole, Numbers.columns), Record)
    found = checked(replace(whole, **change), Numbers.columns)
    assert (found.path, found.reason) == (str(change.get("id", "a")), reason)


def test_what_is_no_record_is_the_reader_s_error(build, monkeypatch):
    monkeypatch.setattr(Numbers, "read", lambda self, source: iter([("a", np.zeros((3, 3)))]))
    with pytest.raises(
        DataError, match=r"Numbers failed to read 's': TypeError: read gave tuple, but must give Record"
    ):
        build()


def test_contents_are_compared_when_asked_for(build, root):
    build()
    _, rebuilt = build(verify=True)
    assert "the contents of the files were not compared when it was made" in rebuilt[0]
    assert build(verify=True)[1] == []
    (root / "v.txt").write_text("5 2 4")
    unnoticed, rebuilt = build()
    assert (unnoticed.offsets(13)[0, 0], rebuilt) == (1, [])
    noticed, rebuilt = build(verify=True)
    assert noticed.offsets(13)[0, 0] == -3
    assert len(rebuilt) == 1
    assert "the files' contents have changed" in rebuilt[0]


def test_the_files_are_looked_at_once_for_all_shards(build, monkeypatch):
    for shard in all_of(5):
        build(shard=shard, verify=True)
    sizes = []
    monkeypatch.setattr("seqdens.prepare._size", lambda path: sizes.append(path) or path.stat().st_size)
    assert len(build(verify=True)[0].paths) == 5
    assert len(sizes) <= 2 * 14


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def garble(path):
    path.write_text("garbage")


def other_schema(path):
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 0


def other_hdf5(path):
    with h5py.File(path, "w") as file:
        file["x"] = 1


@pytest.mark.parametrize("damage", [cut, garble, other_schema, other_hdf5])
def test_a_damaged_cache_is_rebuilt_and_said_so(build, folder, damage):
    data, _ = build()
    whole = files(folder)
    damage(data.path)
    with pytest.raises(DataError):
        Prepared(data.path)
    _, rebuilt = build()
    assert len(rebuilt) == 1
    assert "is rebuilt: it is no complete cache of this version" in rebuilt[0]
    assert files(folder) == whole


def test_notes_of_the_data_set_are_passed_on(root, folder):
    notes = []
    prepare(numbers(), root, folder=folder, workers=1, note=notes.append)
    assert notes == ["numbers are only numbers"]


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_counts_sources(root, folder, workers):
    seen = []
    prepare(numbers(), root, folder=folder, workers=workers, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 14) for done in range(15)]


def test_several_processes_make_the_same_bytes(root, tmp_path):
    (root / "t05.txt").write_text("broken")
    settings = {"max_skipped": 0.2, "verify": True}
    paths = [prepare(numbers(), root, folder=tmp_path / f"{n}", workers=n, **settings).path for n in (1, 2, 3)]
    one, two, three = (path.read_bytes() for path in paths)
    assert one == two == three


def test_processes_read_only_a_little_ahead(root, tmp_path):
    for index in range(30):
        (root / f"u{index:02}.txt").write_text("1 2 3")

    def read():
        return len(list(root.glob("*.read")))

    def stop_once_no_more_is_read(done, total):
        seen = None
        while done and seen != read():
            seen = read()
            time.sleep(0.3)
        assert not done

    with pytest.raises(AssertionError):
        prepare(numbers(), root, folder=tmp_path / "cache", workers=2, progress=stop_once_no_more_is_read)
    assert 1 <= read() <= 2 * AHEAD + 1 < 44
    assert multiprocessing.active_children() == []


def test_by_default_as_many_processes_read_as_this_one_may_use_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5}, raising=False)
    assert cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    for count, usable in ((8, 8), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert cores() == usable


class Large(Dataset):
    """One source of 40 records, 1 MB each."""

    def sources(self):
        return [Source("all")]

    def read(self, source):
        for index in range(40):
            yield Record(str(index), np.zeros((40_000, 3)))


def test_a_source_larger_than_memory_is_not_held_in_it(folder):
    large = Component("datasets", "large", {}, Provider("datasets", "large", lambda root: Large(), "test 1"))
    tracemalloc.start()
    try:
        prepare(large, folder=folder)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("refuse", UsageError, "^choose other numbers$"),
        ("raise", DataError, "test_prepare.Numbers failed to read 't03': Odd: it is odd"),
        ("interrupt", KeyboardInterrupt, None),
        ("broken", DataError, r"1 of 14 items of numbers could not be read, .* 5.0% .* first: .*t03.txt: invalid"),
    ],
)
def test_a_failure_keeps_what_was_there_and_leaves_nothing_else(build, root, folder, workers, content, error, message):
    build()
    before = files(folder)
    (root / "t03.txt").write_text(content)
    with pytest.raises(error, match=message):
        prepare(numbers(), root, folder=folder, workers=workers)
    assert files(folder) == before


def test_a_killed_process_is_one_sentence(root, folder):
    (root / "t03.txt").write_text("exit")
    with pytest.raises(SeqdensError, match="one of 2 processes that read the data was killed"):
        prepare(numbers(), root, folder=folder, workers=2)
    assert files(folder) == {}


def test_without_training_records_data_are_prepared_but_not_for_training(root, folder):
    for path in root.glob("t*.txt"):
        path.unlink()
    for _ in range(2):
        data = prepare(numbers(), root, folder=folder, workers=1)
        assert (len(data), len(data.split("train"))) == (2, 0)
        assert (data.mean.tolist(), data.std.tolist()) == ([0] * len(data.mean), [1] * len(data.mean))
        with pytest.raises(DataError, match="numbers has no training records among 2"):
            data.check_trainable()


def test_without_records_there_is_nothing_to_prepare(root, folder):
    for path in root.glob("*.txt"):
        path.write_text("broken")
    with pytest.raises(DataError, match=r"numbers has no records\."):
        prepare(numbers(), root, folder=folder, workers=1, max_skipped=1.0)
    assert files(folder) == {}


def test_what_was_skipped_counts_in_a_cache_that_is_there_too(build, root):
    (root / "t03.txt").write_text("broken")
    data, _ = build(max_skipped=0.1)
    assert [skip.path for skip in data.skipped] == [str(root / "t03.txt")]
    with pytest.raises(DataError, match=r"1 of 14 items .*t03.txt"):
        build(max_skipped=0.0)
    assert len(build(max_skipped=0.1)[0]) == 13


def test_a_file_that_cannot_be_opened_costs_only_itself(build, root):
    (root / "t99.txt").symlink_to(root / "nowhere")
    data, _ = build(max_skipped=0.1, verify=True)
    assert (len(data), len(data.skipped)) == (14, 1)
    assert build(max_skipped=0.1, verify=True)[1] == []


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_cache_folder_that_cannot_be_is_one_sentence(root, tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(SeqdensError, match=rf"^cannot write '.*{place}/numbers-\w+\.h5': .*; choose another place\.$"):
        prepare(numbers(), root, folder=tmp_path / place, workers=1)


def test_where_caches_are(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQDENS_CACHE", str(tmp_path / "named"))
    assert cache_folder() == tmp_path / "named"
    assert cache_folder(tmp_path / "given") == tmp_path / "given"
    monkeypatch.delenv("SEQDENS_CACHE")
    assert cache_folder().name == "seqdens"
    assert cache_folder().is_absolute()


def test_the_environment_names_the_folder(root, tmp_path, monkeypatch):
    monkeypatch.setenv("SEQDENS_CACHE", str(tmp_path / "named"))
    assert prepare(numbers(), root, workers=1).path.parent == tmp_path / "named"


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (np.zeros((3, 2)), r"points are float64 \(3, 2\), but the columns are x, stroke_end, kind"),
        (np.zeros(3), r"points are float64 \(3,\)"),
        (np.array([["a", "b", "c"]]), r"points are <U1"),
        (np.zeros((3, 3), complex), "points are complex128"),
        (np.zeros((0, 3)), r"0 point\(s\): nothing to predict"),
        (np.zeros((1, 3)), r"1 point\(s\): nothing to predict"),
        (np.array([[0.0, 0, 0], [np.inf, 0, 0]]), "infinite"),
        (np.array([[np.inf, 0, 0], [np.inf, 0, 0]]), "infinite"),
        (np.array([[-np.inf, 0, 0], [0, 0, 0]]), "infinite"),
        (np.array([[0, 0, 0], [1e39, 0, 0]]), "infinite, or is as a 32-bit number"),
        (np.array([[1e308, 0, 0], [-1e308, 0, 0]]), "infinite"),
        (np.array([[0, 0, 0], [1, 2, 0]]), r"column 'stroke_end' has values other than whole numbers of 0..1"),
        (np.array([[0, 0, 0], [1, -1, 0]]), "column 'stroke_end'"),
        (np.array([[0, 0, 0], [1, 0.5, 0]]), "column 'stroke_end'"),
        (np.array([[0, 0, 0], [1, np.nan, 0]]), "column 'stroke_end'"),
        (np.array([[0, 0, 0], [1, 1, 4]]), r"column 'kind' has values other than whole numbers of 0..3"),
    ],
)
def test_points_that_break_the_contract_are_skipped_with_a_reason(points, reason):
    columns = (X, STROKE_END, Column("kind", "category", size=4))
    skipped = checked(Record("r1", points), columns)
    assert isinstance(skipped, Skipped)
    assert skipped.path == "r1"
    assert re.search(reason, skipped.reason)


def test_missing_real_values_and_every_kind_of_number_are_fine():
    columns = (X, STROKE_END, Column("kind", "category", size=4))
    points = np.array([[np.nan, 0, 0], [2, 1, 3]])
    np.testing.assert_array_equal(checked(Record("r", points), columns).points, [[np.nan, 1, 3]])
    for dtype in (bool, np.uint8, np.int64, np.float16, np.float32):
        np.testing.assert_array_equal(checked(Record("r", np.ones((2, 3), dtype)), columns).points, [[0, 1, 1]])


def test_a_text_that_is_no_unicode_is_skipped():
    skipped = checked(Record("r1", np.zeros((2, 1)), text="caf\udce9"), [X])
    assert skipped == Skipped("r1", "its text holds lone surrogates, which are no characters")


def test_unknown_names_and_options_are_refused(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'hershey'"):
        load("hershy", cache=tmp_path)
    with pytest.raises(UsageError, match="'hershey' has no option 'line'"):
        load("hershey", line=3, cache=tmp_path)
    with pytest.raises(UsageError, match="takes no data folder"):
        load("hershey", root=tmp_path, cache=tmp_path)


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
import seqdens
from seqdens.prepare import prepare

class Lines(seqdens.Dataset):
    def sources(self):
        return [seqdens.Source(f"{n}") for n in range(20)]
    def read(self, source):
        yield seqdens.Record(source.name, np.full((int(source.name) + 2, 3), 1))
    def __init__(self, root=None):
        pass

cache = Path(sys.argv[1])
data = seqdens.load("hershey", lines=30, writers=10, cache=cache)
seqdens.register("datasets", "lines", Lines)
lines = prepare(seqdens.dataset("lines"), folder=cache, workers=2)
print(len(data), data.provenance.synthetic, len(lines), "torch" in sys.modules)
"""


def test_a_plain_script_without_a_main_guard_prepares_the_same_bytes(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    command = [sys.executable, "-W", "error", "script.py", "there"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("30 True 20 False\n", "")
    here = seqdens.load("hershey", lines=30, writers=10, cache=tmp_path / "here")
    assert here.path.read_bytes() == (tmp_path / "there" / here.path.name).read_bytes()


INTERRUPTED = """
import os, signal, time
from multiprocessing.connection import Connection
from pathlib import Path
import seqdens
from seqdens.cli import main

class Slow(seqdens.Dataset):
    def __init__(self, root=None):
        pass
    def sources(self):
        return [seqdens.Source(f"{n}") for n in range(20)]
    def read(self, source):
        if not Path("sending").exists():
            wait()
        yield seqdens.Record(source.name, [[0, 0, 0], [1, 1, 1]])

def wait():
    Path(f"{os.getpid()}.waiting").touch()
    time.sleep(600)

def send_half(self, content):
    if os.getpid() == first or not Path("sending").exists():
        return send(self, content)
    os.write(self.fileno(), content[:len(content) // 2])
    wait()

first, send, Connection._send = os.getpid(), Connection._send, send_half
signal.signal(signal.SIGINT, signal.default_int_handler)
seqdens.register("datasets", "slow", Slow)
main()
"""


@pytest.mark.parametrize("sending", [False, True])
@pytest.mark.parametrize("interrupt", [os.killpg, os.kill])
def test_an_interrupt_ends_all_processes_quietly(tmp_path, interrupt, sending):
    (tmp_path / "script.py").write_text(INTERRUPTED)
    if sending:
        (tmp_path / "sending").touch()
    command = [sys.executable, "script.py", "prepare", "slow", "--workers", "2", "--cache", "cache"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(HERE)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            while len(list(tmp_path.glob("*.waiting"))) < 2 - sending and process.poll() is None:
                time.sleep(0.02)
            interrupt(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    with pytest.raises(ProcessLookupError):  # nobody goes on
        os.killpg(process.pid, 0)
    assert (process.returncode, errors) == (130, "Interrupted.\n")
    assert os.listdir(tmp_path / "cache") == []
