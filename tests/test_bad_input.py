"""Every bad input as a user meets it: one sentence with the name and what to do, and what was there before is kept."""

import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import h5py
import pytest
import safetensors
import safetensors.torch
import torch
from click.testing import CliRunner, Result

import seqdens
from seqdens import components
from seqdens.cli import cli
from seqdens.encoders.base import Encoded, Encoder
from seqdens.heads.gmm_bernoulli import GMMBernoulli
from seqdens.model import SequenceModel
from seqdens.training import trainer

LITTLE = [
    *("--set", "dataset.lines=6", "--set", "dataset.writers=3"),
    *("--set", "encoder.hidden_size=8", "--set", "head.components=2"),
    *("--set", "training.batch_size=4", "--set", "sampling.count=2", "--set", "sampling.steps=10"),
]
FORMS = [f"a{number // 10:02}-{number % 10:03}u" for number in range(100)]
POINTS = '<Point x="1073" y="1058" time="1"/><Point x="1072" y="1085" time="2"/><Point x="1200" y="1000" time="3"/>'
XML = f"<WhiteboardCaptureSession><StrokeSet><Stroke>{POINTS}</Stroke></StrokeSet></WhiteboardCaptureSession>\n"
BOMB = "".join(f"<!ENTITY b{n} '{f'&b{n - 1};' * 10}'>" for n in range(1, 10))
SIGNATURE = "3\n2933 5678 31275 0\n2933 5680 31285 1\n3001 5720 31295 1\n"

HERE = Path(__file__).parents[1]
START = (
    "import signal, sys\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # tests may be run by what ignores it
    "{more}\n"
    "from seqdens.cli import main\n"
    "main()\n"
)


def call(*args: Any) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args], prog_name="seqdens")


def run(*args: Any) -> Result:
    return call("run", "handwriting", *args)


def start(*args: Any, more: str = "") -> subprocess.Popen[str]:
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", START.format(more=more), *map(str, args)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(HERE)},
        start_new_session=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_refused(result: Result, status: int, *said: str) -> None:
    """One sentence, in which each of `said` is found, and no traceback."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    (sentence,) = re.findall(r"^Error: (.*\.)\n", result.stderr, re.MULTILINE)
    assert result.stderr.endswith(f"Error: {sentence}\n")
    for each in said:
        assert each in sentence


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own, with an empty folder in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(components, "_registered", [])
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def good_data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A folder of `iamondb` and `svc`, a hundred records each, prepared in `cache`; and what is in it."""
    folder = tmp_path_factory.mktemp("data")
    for form in FORMS:
        for part, name, content in (
            ("lineStrokes", f"{form}-01.xml", XML),
            ("ascii", f"{form}.txt", "OCR:\n\nx\n\nCSR:\n\nsome text\n"),
        ):
            path = folder / "iamondb" / part / form[:3] / form[:7] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    (folder / "svc").mkdir()
    (folder / "empty").mkdir()
    for user in (1, 2, 33, 37):
        for number in range(1, 26):
            (folder / "svc" / f"U{user}S{number}.TXT").write_text(SIGNATURE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert [prepare(name, name).exit_code for name in ("iamondb", "svc")] == [0, 0]
    return folder, contents(folder)


@pytest.fixture
def data(good_data: tuple[Path, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The good data as the working folder; afterwards all is as it was."""
    folder, before = good_data
    monkeypatch.chdir(folder)
    yield folder
    after = contents(folder)
    for name in after.keys() - before.keys():
        (folder / name).unlink()
    for name in before.keys() - {name for name in before if after.get(name) == before[name]}:
        (folder / name).write_bytes(before[name])


@pytest.fixture(scope="module")
def good_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("run") / "out"
    assert run(*LITTLE, "--epochs", 1, "--out", folder).exit_code == 0
    return folder


@pytest.fixture
def trained(good_run: Path, here: Path) -> Path:
    """The run folder `out`."""
    return Path(shutil.copytree(good_run, here / "out"))


def prepare(dataset: str, folder: str, *args: str) -> Result:
    return call("prepare", dataset, "--data", folder, "--cache", "cache", "--workers", 1, "--verify", *args)


# Folders


@pytest.mark.parametrize(
    ("dataset", "folder", "said"),
    [
        ("iamondb", "nowhere", "nowhere is not a folder; name the folder into which lineStrokes-all.tar.gz"),
        ("svc", "nowhere", "nowhere is not a folder; name the folder Task1 or Task2 of SVC2004"),
        ("iamondb", "empty", "empty holds no folder lineStrokes; name the folder into which"),
        ("svc", "empty", "empty holds no signatures; name the folder Task1 or Task2"),
        ("iamondb", "svc", "svc holds no folder lineStrokes; name the folder"),
        ("svc", "iamondb", "iamondb holds no signatures; name the folder"),
        ("iamondb", "iamondb/ascii", "ascii holds no folder lineStrokes; name the folder"),
        ("iamondb", "svc/U1S1.TXT", "U1S1.TXT is not a folder; name the folder"),
    ],
)
def test_a_folder_that_is_not_the_data_set(data: Path, dataset: str, folder: str, said: str) -> None:
    before = contents(data)
    assert_refused(prepare(dataset, folder), 1, said)
    assert_refused(run("--dataset", dataset, "--data", folder, "--out", "out", "--cache", "cache"), 1, said)
    assert contents(data) == before
    assert not (data / "out").exists()


# One bad file among a hundred


def line(old: str, new: str) -> Callable[[Path], str]:
    """A fault in one line file; returns the file's name."""

    def damage(root: Path) -> str:
        name = "iamondb/lineStrokes/a04/a04-002/a04-002u-01.xml"
        assert old in XML
        (root / name).write_text(XML.replace(old, new))
        return name

    return damage


def text(content: str | None) -> Callable[[Path], str]:
    """Another transcription, or none."""

    def damage(root: Path) -> str:
        name = "iamondb/ascii/a04/a04-002/a04-002u.txt"
        (root / name).write_text(content) if content is not None else (root / name).unlink()
        return name

    return damage


def signature(content: str) -> Callable[[Path], str]:
    def damage(root: Path) -> str:
        (root / "svc" / "U2S3.TXT").write_text(content)
        return "svc/U2S3.TXT"

    return damage


WHOLE = "not a whole number of 32 bits"
TWO_POINTS = '<Point x="1072" y="1085" time="2"/><Point x="1200" y="1000" time="3"/>'
NO_STROKE = f"<Stroke>{POINTS}</Stroke>"
BAD_FILES = {
    "truncated XML": (line(XML[120:], ""), "is not well-formed XML: "),
    "an empty file": (line(XML, ""), "is not well-formed XML: Document is empty"),
    "an entity bomb": (line(XML, f"<!DOCTYPE a [<!ENTITY b0 'ha'>{BOMB}]><a>&b9;</a>"), "is not well-formed XML: "),
    "an unused bomb": (line(XML, f"<!DOCTYPE a [<!ENTITY b0 'ha'>{BOMB}]>{XML}"), "declares XML entities"),
    "a file from outside": (line(XML, f"<!DOCTYPE a [<!ENTITY b SYSTEM '{__file__}'>]>{XML}"), "declares XML entities"),
    "a point without x": (line('x="1072"', ""), "stroke 1 holds something that is not a point with x and y"),
    "a point without y": (line('y="1085"', ""), "stroke 1 holds something that is not a point with x and y"),
    "no number": (line('x="1072"', 'x="1o72"'), f"stroke 1 has a point with x='1o72', {WHOLE}"),
    "an infinite x": (line('x="1072"', 'x="inf"'), f"stroke 1 has a point with x='inf', {WHOLE}"),
    "an infinite y": (line('y="1085"', 'y="-Infinity"'), f"stroke 1 has a point with y='-Infinity', {WHOLE}"),
    "a NaN": (line('y="1085"', 'y="nan"'), f"stroke 1 has a point with y='nan', {WHOLE}"),
    "an endless number": (line('y="1085"', f'y="{"9" * 9999}"'), f"has a point with y='{'9' * 60}', {WHOLE}"),
    "a line of one point": (line(TWO_POINTS, ""), "has 1 point(s): nothing to predict"),
    "an empty stroke alone": (line(POINTS, ""), "has 0 point(s): nothing to predict"),
    "a line without strokes": (line(NO_STROKE, ""), "has 0 point(s): nothing to predict"),
    "no transcription": (text(None), "there is no such file: the lines of this form have no text"),
    "a longer transcription": (text("CSR:\n\none\ntwo\n"), "has 2 lines of text for 1 line files: none is used"),
    "a transcription of nothing": (text("OCR:\n\nx\n\nCSR:\n\n"), "has no text after 'CSR:'"),
    "NUL bytes in strokes": (line("1085", "10\08"), "is not well-formed XML: "),
    "NUL bytes in a text": (text("CSR:\n\nsome\0text\n"), "holds NUL bytes: none of its text is used"),
    "NUL bytes in a signature": (signature(SIGNATURE.replace("5680", "56\0")), "line 3 is "),
    "a count that lies": (signature(SIGNATURE.replace("3\n", "4\n", 1)), "line 1 is '4', but 3 points follow"),
    "a count that is huge": (signature(f"{'9' * 99}\n1 2 3 0\n1 2 3 1\n"), "line 1 has a number beyond 32 bits"),
    "a signature with infinities": (signature(SIGNATURE.replace("5680", "inf")), "not whole numbers"),
    "a signature with NaN": (signature(SIGNATURE.replace("5680", "nan")), "not whole numbers"),
    "a signature of one point": (signature("1\n2933 5678 31275 0\n"), "has 1 point(s) with the pen down"),
}


@pytest.mark.parametrize(("damage", "reason"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_one_bad_file_is_skipped_and_counted_or_with_strict_refused(data: Path, damage: Any, reason: str) -> None:
    before = contents(data / "cache")
    name = damage(data)
    dataset = name.partition("/")[0]
    assert_refused(
        prepare(dataset, dataset, "--strict"), 1, "1 of 10", "mend or remove them", f"the first: {name}: ", reason
    )
    assert contents(data / "cache") == before
    done = prepare(dataset, dataset)
    assert done.exit_code == 0, done.output
    assert done.output.count("  skipped ") == 1
    assert f"  skipped {name}: " in done.output
    assert reason in done.output
    records = {"iamondb": "100 lines" if name.endswith(".txt") else "99 lines", "svc": "99 signatures"}
    assert re.search(rf"^{dataset}: {records[dataset]} \(.*\), \d+ points, 1 skipped$", done.output, re.MULTILINE)


def test_an_empty_stroke_among_others_costs_nothing(data: Path) -> None:
    before = contents(data / "cache")
    line(NO_STROKE, f"<Stroke></Stroke>{NO_STROKE}<Stroke/>")(data)
    done = prepare("iamondb", "iamondb")
    assert "iamondb: 100 lines" in done.output
    assert "skipped" not in done.output
    assert contents(data / "cache").keys() == before.keys()


def test_more_bad_files_than_can_be_chance_are_refused(data: Path) -> None:
    before = contents(data / "cache")
    for path in data.glob("iamondb/lineStrokes/a04/*/*"):
        path.write_text("")
    refused = prepare("iamondb", "iamondb")
    assert_refused(
        refused, 1, "10 of 100 items of iamondb could not be read, more than the 5.0% that may fail; mend or"
    )
    assert contents(data / "cache") == before


# The cache


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def other_version(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 1


def no_cache(path: Path) -> None:
    path.write_text("something else")


@pytest.mark.parametrize("damage", [cut_short, other_version, no_cache])
def test_a_cache_that_is_damaged_or_of_another_version_is_made_anew(data: Path, damage: Callable[[Path], None]) -> None:
    (path,) = data.glob("cache/svc-*.h5")
    before = contents(data / "cache")
    damage(path)
    done = prepare("svc", "svc")
    assert done.exit_code == 0, done.output
    assert f"{path.name} is rebuilt: it is no complete cache of this version of seqdens (" in done.output
    assert contents(data / "cache") == before


def test_two_that_prepare_at_once_make_one_good_cache(here: Path) -> None:
    command = ("prepare", "hershey", "--set", "lines=30", "--cache", "cache", "--workers", 1)
    both = [start(*command) for _ in range(2)]
    assert [process.communicate(timeout=60)[1] for process in both] == ["", ""]
    assert [process.returncode for process in both] == [0, 0]
    together = contents(here / "cache")
    shutil.rmtree("cache")
    assert call(*command).exit_code == 0
    assert contents(here / "cache") == together


# Checkpoints and weights


class Own(Encoder):
    """A plugin's encoder, which says in `output_size` what its class says."""

    size: Any = 3

    def __init__(self, input_size: int, context_size: int = 0) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(input_size, 3)
        if self.size is not None:
            self.output_size = self.size

    def start(self, batch_size: int, context: Any = None) -> dict[str, torch.Tensor]:
        return {"nothing": torch.zeros(batch_size, 1)}

    def forward(self, inputs: Any, lengths: Any, state: Any, context: Any = None) -> Encoded:
        return Encoded(self.linear(inputs), state, {})


class Sizeless(Own):
    size = None


class Boundless(Own):
    size = "three"


class Noiseless(GMMBernoulli):
    """A head that does not say how much noise a draw needs."""

    def __init__(self, input_size: int, columns: Any, *, components: int = 2) -> None:
        super().__init__(input_size, columns, components=components)
        del self.noise_size


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("encoder.hidden_size=9", "encoder {'name': 'stacked-lstm'"),
        ("head.components=3", "head {'name': 'gmm-bernoulli'"),
    ],
)
def test_a_checkpoint_of_another_architecture(trained: Path, option: str, said: str) -> None:
    before = contents(trained)
    refused = run("--resume", "--out", "out", "--epochs", 2, "--set", option)
    assert_refused(refused, 2, f"out/trainer.pt was saved by a run with another setting ({said}", "take back")
    assert contents(trained) == before
    assert run("--resume", "--out", "out", "--epochs", 2).exit_code == 0


def test_a_checkpoint_of_another_run(trained: Path, here: Path) -> None:
    shutil.copytree("out", "other")
    assert run("--overwrite", "--out", "other", *LITTLE, "--epochs", 1, "--set", "encoder.hidden_size=9").exit_code == 0
    shutil.copy("other/best.safetensors", "out/trainer.pt")
    assert_refused(
        run("--resume", "--out", "out", "--epochs", 2), 1, "out/trainer.pt is no trainer state, or a damaged one"
    )
    shutil.copy("other/trainer.pt", "out/trainer.pt")
    assert_refused(run("--resume", "--out", "out", "--epochs", 2), 2, "out/trainer.pt", "another setting (encoder")


def test_a_checkpoint_of_a_missing_plugin(here: Path) -> None:
    seqdens.register("encoders", "own", Own)
    assert run(*LITTLE[:4], *LITTLE[6:], "--encoder", "own", "--epochs", 1, "--out", "out").exit_code == 0
    before = contents(here / "out")
    components._registered.clear()
    assert_refused(call("sample", "out"), 1, "out/best.safetensors needs the encoder 'own' of registered in code by")
    assert_refused(run("--resume", "--out", "out", "--epochs", 2), 2, "no 'own' among the encoders; known: ")
    assert contents(here / "out") == before
    seqdens.register("encoders", "own", Own)
    assert run("--resume", "--out", "out", "--epochs", 2).exit_code == 0


@pytest.mark.parametrize("cls", [Sizeless, Boundless])
def test_a_plugin_s_encoder_without_its_size(here: Path, cls: type[Own]) -> None:
    seqdens.register("encoders", "own", cls)
    refused = run(*LITTLE[:4], *LITTLE[6:], "--encoder", "own", "--out", "out")
    assert_refused(refused, 1, "'own' of encoders (registered in code by ", f"has output_size {cls.size!r}, but ")
    assert not Path("out").exists()


def test_a_plugin_s_head_without_its_noise(here: Path) -> None:
    seqdens.register("heads", "own", Noiseless)
    refused = run(*LITTLE, "--head", "own", "--out", "out")
    assert_refused(refused, 1, "'own' of heads (registered in code by ", "has noise_size None, but its ")
    assert not Path("out").exists()


@pytest.mark.parametrize("model", ["nowhere", "empty", "nowhere.safetensors"])
def test_no_checkpoint_at_all(trained: Path, model: str) -> None:
    assert_refused(call("sample", model), 1, f"there are no weights at {model}", "a run writes best.safetensors and")
    Path("out/trainer.pt").unlink()
    before = contents(trained)
    for _ in ("config.toml there", "not there"):
        refused = run("--resume", "--out", "out", *LITTLE)
        assert refused.exit_code in (1, 2)
        assert_refused(refused, refused.exit_code, "out ", "--overwrite", "another folder")
        assert contents(trained) == before
        Path("out/config.toml").unlink(missing_ok=True)
        before.pop("config.toml", None)


def rewrite(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


WEIGHTS = {
    "header longer than the file": lambda path: path.write_bytes(b"\xff" * 7 + b"\x7f{}"),
    "header cut short": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "an empty file": lambda path: path.write_bytes(b""),
    "numbers cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "another shape": lambda path: rewrite(path, b'"shape":[', b'"shape":[9'),
    "another type": lambda path: rewrite(path, b'"dtype":"F32"', b'"dtype":"F64"'),
    "a type that is none": lambda path: rewrite(path, b'"dtype":"F32"', b'"dtype":"Q32"'),
    "places that overlap": lambda path: rewrite(path, b'"data_offsets":[', b'"data_offsets":[4'),
    "another size": lambda path: rewrite(path, b'hidden_size\\": 8', b'hidden_size\\": 9'),
    "a column of another kind": lambda path: rewrite(path, b'stroke_end\\", \\"binary', b'stroke_end\\", \\"benary'),
    "no description": lambda path: safetensors.torch.save_file({"weight": torch.zeros(3)}, path),
    "endless nesting": lambda path: safetensors.torch.save_file({}, path, {"seqdens": "[" * 100_000}),
    "a text": lambda path: path.write_text("weights\n"),
    "a checkpoint": lambda path: shutil.copy(path.with_name("trainer.pt"), path),
}


@pytest.mark.parametrize("damage", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_weights_whose_header_lies(trained: Path, damage: Callable[[Path], Any]) -> None:
    path = Path("out/best.safetensors")
    damage(path)
    before = contents(trained)
    assert_refused(call("sample", "out", "-n", 1, "--steps", 3), 1, "out/best.safetensors ", "(")
    assert_refused(run("--resume", "--out", "out", "--epochs", 2), 1, "out/best.safetensors ")
    assert contents(trained) == before
    assert call("sample", "out/last.safetensors", "-n", 1, "--steps", 3).exit_code == 0


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_pickle_by_another_name_is_not_run(trained: Path, here: Path, writer: str) -> None:
    mark = here / "exploded"
    state = torch.load("out/trainer.pt", weights_only=True) | {"extra": Bomb(mark)}
    for name in ("best.safetensors", "trainer.pt"):
        path, whole = trained / name, (trained / name).read_bytes()
        torch.save(state, path) if writer == "torch" else path.write_bytes(pickle.dumps(state))
        before = contents(trained)
        if name == "best.safetensors":
            assert_refused(call("sample", "out"), 1, f"out/{name} is no seqdens model", "name a run folder, or best")
        refused = run("--resume", "--out", "out", "--epochs", 2)
        assert_refused(refused, 1, f"out/{name} is no ")
        assert contents(trained) == before
        path.write_bytes(whole)
    assert ("it holds more than plain data" if writer == "torch" else "File is not a zip file") in refused.stderr
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()
    assert run("--resume", "--out", "out", "--epochs", 2).exit_code == 0


# Places that cannot be written


@pytest.mark.parametrize(
    "damage",
    [
        signature("9000\n" + "2933 5678 31275 0\n" * 9000),  # while the points are gathered
        text(f"CSR:\n\n{'some text ' * 9000}\n"),  # while the file itself is written, by HDF5
    ],
)
def test_a_full_disk_keeps_the_cache(
    data: Path, damage: Callable[[Path], str], full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    before = contents(data / "cache")
    dataset = damage(data).partition("/")[0]
    with full_disk(50_000):
        refused = prepare(dataset, dataset)
    assert_refused(refused, 1, f"cannot write 'cache/{dataset}-", ".h5': File too large; choose another place")
    assert contents(data / "cache") == before
    assert prepare(dataset, dataset).exit_code == 0


@pytest.mark.parametrize("size", [0, 4_000])
def test_a_full_disk_keeps_the_run(
    trained: Path, size: int, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    state = (trained / "trainer.pt").read_bytes()
    with full_disk(size):
        refused = run("--resume", "--out", "out", "--epochs", 2)
    assert_refused(refused, 1, "cannot write 'out/", "': File too large; choose another place")
    assert not list(trained.glob(".*"))
    assert (trained / "trainer.pt").read_bytes() == state
    assert SequenceModel.load(trained).sample(steps=3)
    assert run("--resume", "--out", "out", "--epochs", 2).exit_code == 0


def test_a_full_disk_keeps_the_samples(trained: Path, full_disk: Callable[[int], AbstractContextManager[None]]) -> None:
    assert call("sample", "out", "-n", 2, "--steps", 100, "--seed", 1).exit_code == 0
    before = Path("samples.svg").read_bytes()
    with full_disk(1_000):
        refused = call("sample", "out", "-n", 2, "--steps", 100)
    assert_refused(refused, 1, "cannot write 'samples.svg': File too large")
    assert Path("samples.svg").read_bytes() == before


@pytest.fixture(scope="module")
def for_all() -> Iterator[Path]:
    """A folder that everybody may read, with a run `out` and its data in `cache`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        done = run(*LITTLE, "--epochs", 1, "--out", folder / "out", "--cache", folder / "cache")
        assert done.exit_code == 0, done.output
        assert call("sample", folder / "out", "-n", 1, "--steps", 3, "--out", folder / "out" / "1.csv").exit_code == 0
        yield folder


@pytest.fixture
def read_only(for_all: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """That folder, in which nobody may write now: root becomes somebody else."""
    monkeypatch.chdir(for_all)
    folders = [for_all, for_all / "out", for_all / "cache"]
    for folder in folders:
        folder.chmod(0o555)
    root = os.access(for_all, os.W_OK)
    if root:
        os.seteuid(65534)
    yield for_all
    if root:
        os.seteuid(0)
    for folder in folders:
        folder.chmod(0o755)


@pytest.mark.parametrize(
    ("command", "place"),
    [
        (("prepare", "hershey", "--set", "lines=5", "--cache", "cache"), "cache/hershey-"),
        (("run", "handwriting", *LITTLE, "--cache", "cache", "--epochs", "1", "--out", "new"), "new"),
        (("run", "handwriting", *LITTLE, "--cache", "cache", "--epochs", "1", "--out", "out", "--overwrite"), "out"),
        (("run", "handwriting", "--cache", "cache", "--epochs", "2", "--out", "out", "--resume"), "out"),
        (("run", "handwriting", *LITTLE, "--cache", "other", "--epochs", "1", "--out", "new"), "other/hershey-"),
        (("sample", "out", "-n", "1", "--steps", "3", "--out", "new.svg"), "new.svg"),
        (("sample", "out", "-n", "1", "--steps", "3", "--out", "new/lines.csv"), "new/lines.csv"),
    ],
)
def test_a_read_only_folder(read_only: Path, command: tuple[str, ...], place: str) -> None:
    before = contents(read_only)
    assert_refused(call(*command), 1, f"cannot write '{place}", "Permission denied; choose another place")
    assert contents(read_only) == before


# Two at once, and interrupts


HOLDER = """
from pathlib import Path
from seqdens.training.run_folder import Run
with Run(Path("out")).opened(resume=True):
    Path("held").touch()
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["--resume", "--overwrite"])
def test_two_runs_on_one_folder(trained: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    step, second = trainer._Fit._step, list[Result]()
    options = ["--cache", "cache", *LITTLE, "--epochs", 2, "--out", "out"]

    def while_running(self: Any, batch: Any) -> None:
        if not second:
            before = contents(trained)
            second.append(run(*options, how))
            assert contents(trained) == before
        step(self, batch)

    monkeypatch.setattr(trainer._Fit, "_step", while_running)
    first = run(*options, "--resume")
    assert first.exit_code == 0, first.output
    assert_refused(second[0], 2, "out: another run is using it; wait until it has ended, or choose another folder")
    assert not list(trained.glob(".*"))


def test_a_run_that_was_killed_leaves_its_folder_free(trained: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys" + HOLDER],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(HERE)},
    )
    with holder:
        try:
            wait_for(Path("held"), holder)
            assert_refused(run("--resume", "--out", "out", "--epochs", 2), 2, "out: another run is using it")
        finally:
            holder.kill()
    assert (trained / ".lock").exists()
    assert run("--resume", "--out", "out", "--epochs", 2).exit_code == 0
    assert not list(trained.glob(".*"))


SLOW_SAVES = """
import time
from pathlib import Path
write = Path.write_bytes
def slowly(path, content):
    if path.name == "trainer.pt" and Path("interrupt").exists():
        write(path, bytes(content)[:100])
        Path("saving").touch()
        time.sleep(600)
    write(path, content)
Path.write_bytes = slowly
"""


def test_ctrl_c_twice_while_a_run_is_saved(trained: Path, here: Path) -> None:
    process = start("run", "handwriting", "--resume", "--out", "out", "--epochs", 10**6, more=SLOW_SAVES)
    state = (trained / "trainer.pt").stat().st_ino
    try:
        while (trained / "trainer.pt").stat().st_ino == state:  # until it trains
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        Path("interrupt").touch()
        os.killpg(process.pid, signal.SIGINT)
        wait_for(Path("saving"), process)
        time.sleep(1)  # what comes sooner is the same one
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, errors.splitlines()[-1]) == (130, "Interrupted.")
    assert "Stopped; what is saved goes on with: seqdens run handwriting --resume --out out" in errors
    assert "Traceback" not in errors
    assert not list(trained.glob(".*"))
    epoch = torch.load("out/trainer.pt", weights_only=True)["progress"]["epoch"]
    assert epoch >= 2
    assert run("--resume", "--out", "out", "--epochs", epoch + 1).exit_code == 0
    assert SequenceModel.load("out").sample(steps=3)


SLOW_DATA = """
import time
from pathlib import Path
import seqdens
class Slow(seqdens.Dataset):
    def __init__(self, root=None):
        pass
    def sources(self):
        return [seqdens.Source(f"{n}") for n in range(20)]
    def read(self, source):
        Path(f"reading {source.name}").touch()
        time.sleep(600)
        yield
seqdens.register("datasets", "slow", Slow)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_twice_while_data_are_prepared(data: Path, workers: int) -> None:
    before = contents(data / "cache")
    process = start("prepare", "slow", "--cache", "cache", "--workers", workers, more=SLOW_DATA)
    try:
        wait_for(Path(f"reading {workers - 1}"), process)
        for _ in range(2):
            os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode in (130, -signal.SIGINT)  # a shell shows 130 for both
    assert errors == "Interrupted.\n"
    assert contents(data / "cache") == before
    assert sorted(path.name.partition("-")[0] for path in (data / "cache").iterdir()) == ["iamondb", "svc"]
