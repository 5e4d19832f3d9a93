"""Shards: sources divided evenly and in order, prepared anywhere and in any order, opened as the whole."""

import os
import pickle
import shlex
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import seqdens
from seqdens import components
from seqdens.batches import evaluation_batches, training_batches
from seqdens.cache import Prepared, Provenance, write
from seqdens.cli import cli
from seqdens.datasets.base import Column, Dataset, Record, Skipped, Source, X, Y
from seqdens.errors import DataError, UsageError
from seqdens.moments import Moments
from seqdens.prepare import prepare
from seqdens.shards import Shard, all_of
from seqdens.testing.datasets import contents

SPLITS = ("train", "train", "valid", "test")
KIND = Column("kind", "category", size=500)


class Drawings(Dataset):
    """Drawn records, some to be skipped, in sources of unequal number; numbers of one source are fractions."""

    columns = (X, Y, KIND)
    many = 9

    def __init__(self, root: Path | None = None, *, fractions: bool = False, text: str = "à b") -> None:
        self.fractions, self.text = fractions, text

    def sources(self) -> list[Source]:
        return [Source(f"s{number}") for number in range(self.many)]

    def read(self, source: Source):
        number = int(source.name[1:])
        rng = np.random.default_rng(number)
        for index in range(number % 4):
            name = f"{source.name}-{index}"
            if index == 2 and number == 3:
                yield Skipped(name, "is empty")
                continue
            points = rng.integers(-40_000 * (number == 5) - 9, 9, (rng.integers(2, 30), 3))
            points[:, 2] = rng.integers(0, 500 if number == 6 else 100, len(points))
            text = (self.text[: index + number % 3] + chr(97 + number)) * (number != 2)
            values = points + np.array([0.1, 0, 0]) if self.fractions and number == 7 else points
            yield Record(name, values, SPLITS[(index + number) % 4], text, f"g{number}", f"l{index}")


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(components, "_registered", [])
    monkeypatch.setenv("SEQDENS_CACHE", str(tmp_path / "cache"))
    seqdens.register("datasets", "drawings", Drawings)


def drawings(shard: Shard | None = None, folder: Path | None = None, **settings):
    options = settings.pop("options", {})
    limits = {"max_skipped": 0.2} | settings
    return prepare(seqdens.dataset("drawings", **options), folder=folder, workers=1, shard=shard, **limits)


def prepare_all(total: int, **settings) -> None:
    for shard in all_of(total):
        drawings(shard, **settings)


def equal(batch, other):
    return all(torch.equal(one, two) for one, two in zip(batch, other, strict=True))


@pytest.mark.parametrize("fractions", [False, True])
@pytest.mark.parametrize("total", [1, 2, 3, 8, 30])
def test_shards_are_the_whole(tmp_path, total, fractions):
    options = {"fractions": fractions}
    whole = drawings(folder=tmp_path / "whole", options=options)
    prepare_all(total, options=options)
    joined = drawings(options=options)
    assert (len(joined.paths), len(whole.skipped)) == (total, 1)
    assert contents(joined) == contents(whole)
    assert joined.integer != fractions
    records = np.random.default_rng(0).permutation(len(whole))
    assert joined.lengths_of(records).tolist() == whole.lengths_of(records).tolist()
    assert joined.lengths_of(records[0]) == whole.lengths_of(records[0])
    assert joined.texts[-3:1:-1] == whole.texts[-3:1:-1]
    assert joined.texts.empty().tolist() == whole.texts.empty().tolist()
    for skip in (0, 2):
        pairs = zip(training_batches(joined, 2, 1, 3, skip), training_batches(whole, 2, 1, 3, skip), strict=True)
        assert all(equal(*pair) for pair in pairs)
    every = whole.split("all")
    pairs = zip(evaluation_batches(joined, every, 3), evaluation_batches(whole, every, 3), strict=True)
    assert all(equal(*pair) for pair in pairs)
    assert contents(pickle.loads(pickle.dumps(joined))) == contents(whole)
    for outside in (len(whole), -len(whole) - 1):
        for sequence in (joined.offsets, joined.texts.__getitem__):
            with pytest.raises(IndexError):
                sequence(outside)


real = st.one_of(st.integers(-(2**40), 2**40), st.floats(-1e9, 1e9), st.just(float("nan")))
points = st.lists(st.tuples(real, real), min_size=1, max_size=4)
item = st.one_of(st.tuples(points, st.sampled_from(SPLITS), st.text(max_size=3)), st.just(None))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(item, max_size=3), min_size=2, max_size=5).filter(lambda parts: any(map(any, parts))))
def test_any_records_in_any_parts_are_the_whole(tmp_path_factory, parts):
    def items(drawn):
        return [
            Record("r", np.array(each[0]), each[1], each[2], each[2][:1]) if each else Skipped("p", "why")
            for each in drawn
        ]

    def about(shard=""):
        return Provenance.of("drawn", 1, {}, (X, Y), synthetic=True, sources="", shard=shard)

    folder = tmp_path_factory.mktemp("cache")
    whole = write(folder / "whole.h5", about(), items(chain(*parts)))
    paths = [folder / f"{number}.h5" for number in range(len(parts))]
    for number, (path, drawn) in enumerate(zip(paths, parts, strict=True), 1):
        write(path, about(f"{number}/{len(parts)}"), items(drawn))
    assert contents(Prepared(*paths)) == contents(whole)


sizes = st.lists(st.integers(0, 10**12), max_size=40)


@settings(deadline=None)
@given(sizes, st.integers(1, 50))
def test_every_source_is_in_one_shard_and_shards_are_of_like_size(drawn, total):
    sources = [Source(str(number)) for number in range(len(drawn))]
    shares = [shard.share(sources, drawn) for shard in all_of(total)]
    assert list(chain(*shares)) == sources
    weights = [max(1, size) for size in drawn]
    for share in shares:
        weight = sum(weights[int(source.name)] for source in share)
        assert abs(weight - sum(weights) / total) <= max(weights, default=0) + 1


def test_sources_without_files_are_counted():
    sources = [Source(str(number)) for number in range(100)]
    assert {len(shard.share(sources, [0] * 100)) for shard in all_of(8)} == {12, 13}


@pytest.mark.parametrize(("text", "shard"), [("1/1", Shard(1, 1)), ("2/8", Shard(2, 8)), ("10/10", Shard(10, 10))])
def test_a_shard_is_written_as_it_is_read(text, shard):
    assert (Shard.parse(text), str(shard)) == (shard, text)


@pytest.mark.parametrize("text", ["", "2", "0/8", "9/8", "2/0", "-1/8", "2/8/1", "a/b", "2/8 ", "²/8", "02/8"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(UsageError, match=r"must read I/N, part I of N from 1/N to N/N and N at most 999999, such as"):
        Shard.parse(text)


def test_a_set_of_shards_can_be_one_file_and_the_whole_comes_first():
    prepare_all(3)
    assert len(drawings().paths) == 3
    whole = drawings(rebuild=True)
    assert len(whole.paths) == 1
    assert drawings().path == whole.path


def test_a_shard_that_is_up_to_date_is_kept_and_others_are_not_touched():
    first = drawings(Shard(2, 3))
    made = first.path.stat().st_ino
    assert drawings(Shard(2, 3)).path.stat().st_ino == made
    assert os.listdir(first.path.parent) == [first.path.name]
    assert drawings(Shard(2, 3), rebuild=True).path.stat().st_ino != made


def lose(monkeypatch, path):
    path.unlink()


def garble(monkeypatch, path):
    path.write_text("garbage")


def take_another(monkeypatch, path):
    path.write_bytes(Path(str(path).replace("2-of-3", "1-of-3")).read_bytes())


def read_otherwise(monkeypatch, path):
    with h5py.File(path, "r+", libver=("v110", "latest")) as file:
        file.attrs["reader_version"] = 7


def lose_moments(monkeypatch, path):
    with h5py.File(path, "r+", libver=("v110", "latest")) as file:
        del file["moments"]


def falsify_moments(monkeypatch, path):
    with h5py.File(path, "r+", libver=("v110", "latest")) as file:
        text = Moments.of(np.ones((1, 2))).to_json().encode()
        file["moments"][...] = np.frombuffer(text.ljust(len(file["moments"])), np.uint8)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lose_moments, r"2/3 \(it is no complete cache of this version of seqdens \(KeyError: 'moments'\)\)"),
        (falsify_moments, r"2/3 \(it is no .* \(ValueError: mean and std are not those of its moments\)\)"),
        (lose, r"2/3 \(missing\)"),
        (garble, r"2/3 \(it is no complete cache of this version of seqdens \(.*\)\)"),
        (take_another, r"2/3 \(shard '1/3' is now '2/3'\)"),
        (read_otherwise, r"2/3 \(reader_version 7 is now 1\)"),
    ],
)
def test_a_shard_that_cannot_be_used_is_named_with_the_command_that_mends_it(monkeypatch, tmp_path, change, said):
    folder, options = tmp_path / "some where", {"text": "it's"}
    prepare_all(3, options=options, folder=folder)
    (path,) = folder.glob("*.2-of-3.h5")
    change(monkeypatch, path)
    with pytest.raises(
        DataError, match=rf"^1 of 3 shards of drawings cannot be used: {said}; prepare each with `"
    ) as told:
        drawings(options=options, folder=folder)
    _, mending, _, anew, _ = str(told.value).split("`")
    assert mending.endswith(" --shard 2/3")
    assert CliRunner().invoke(cli, shlex.split(mending)[1:]).exit_code == 0
    assert len(drawings(options=options, folder=folder).paths) == 3
    path.unlink()
    assert CliRunner().invoke(cli, [*shlex.split(anew)[1:], "--workers", "1"]).exit_code == 1  # above 5 % are skipped
    assert len(drawings(options=options, folder=folder, rebuild=True).paths) == 1


def test_of_two_divisions_the_complete_one_is_opened():
    prepare_all(3)
    drawings(Shard(1, 2))
    drawings(Shard(4, 5))
    assert len(drawings().paths) == 3


def test_shards_of_other_options_are_not_mixed():
    prepare_all(2)
    drawings(Shard(1, 2), options={"fractions": True})
    with pytest.raises(DataError, match=r"2/2 \(missing\).*--set fractions=true --shard 2/2`"):
        drawings(options={"fractions": True})
    assert len(drawings().paths) == 2


def test_shards_that_do_not_belong_together_are_not_joined(tmp_path):
    one, other = (
        [drawings(shard, folder=tmp_path / f"{n}", options={"fractions": bool(n)}).path for shard in all_of(2)]
        for n in (0, 1)
    )
    for paths in ((one[0], other[1]), (one[1], one[0]), (one[0], one[0]), (*one, one[1])):
        with pytest.raises(DataError, match=r"is not shard \d/\d of the data of .*; prepare it again\."):
            Prepared(*paths)


def test_files_that_changed_make_all_shards_stale(monkeypatch):
    prepare_all(2)
    monkeypatch.setattr(Drawings, "many", 10)
    with pytest.raises(DataError, match=r"^2 of 2 shards .* 1/2 .*names or sizes have changed.*, 2/2 .*have changed"):
        drawings()


def test_contents_of_each_shard_are_compared_when_asked_for(monkeypatch, tmp_path):
    prepare_all(2)
    with pytest.raises(DataError, match="the contents of the files were not compared when it was made"):
        drawings(verify=True)
    prepare_all(2, verify=True)
    assert len(drawings(verify=True).paths) == len(drawings().paths) == 2


def test_the_share_that_may_be_skipped_is_of_the_whole():
    assert len(drawings(Shard(2, 5), max_skipped=0.1)) > 0
    prepare_all(5, max_skipped=0.1)
    assert len(drawings(max_skipped=0.1).skipped) == 1
    with pytest.raises(
        DataError, match=r"1 of 12 items of drawings could not be read, more than the 5.0% .* s3-2: is e"
    ):
        drawings(max_skipped=0.05)
    skipping = next(shard for shard in all_of(5) if drawings(shard).skipped)
    for rebuild in (False, True):
        with pytest.raises(DataError, match=r"1 of \d items of drawings could not be read, more than the 0.0%"):
            drawings(skipping, max_skipped=0.0, rebuild=rebuild)


def test_without_records_there_is_no_data_set(monkeypatch):
    monkeypatch.setattr(Drawings, "many", 1)  # the first source is empty
    prepare_all(2)
    for rebuild in (False, True):
        with pytest.raises(DataError, match=r"drawings has no records\."):
            drawings(rebuild=rebuild)


def prepare_one(folder: Path) -> bytes:
    return drawings(Shard(2, 3), folder=folder, rebuild=True).path.read_bytes()


def test_preparing_the_same_shard_at_once_does_no_harm(tmp_path):
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(prepare_one, [tmp_path / "shared"] * 9))
    assert len(set(made)) == 1
    assert len(list((tmp_path / "shared").iterdir())) == 1


def seqdens_prepare(*arguments):
    return CliRunner().invoke(cli, ["prepare", "hershey", "--workers", "1", *arguments], prog_name="seqdens")


def test_the_command_prepares_shards_and_says_what_is_left(tmp_path):
    little = ["--set", "lines=12", "--set", "writers=4"]
    last = seqdens_prepare(*little, "--shard", "3/3")
    assert last.exit_code == 0, last.output
    assert "hershey (synthetic), shard 3/3: " in last.output
    assert last.output.endswith(".3-of-3.h5\nStill to be prepared: 1/3, 2/3\n")
    early = seqdens_prepare(*little)
    assert early.exit_code == 1
    assert (
        "Error: 2 of 3 shards of hershey cannot be used: 1/3 (missing), 2/3 (missing); prepare each with"
        in early.output
    )
    assert "`seqdens prepare hershey --set lines=12 --set writers=4 --shard 1/3`" in early.output
    assert seqdens_prepare(*little, "--shard", "1/3").exit_code == 0
    assert seqdens_prepare(*little, "--shard", "2/3").output.endswith(
        "All 3 shards have a file; they are opened as one if each is up to date.\n"
    )
    done = seqdens_prepare(*little)
    assert "hershey (synthetic): 12 lines (6 train, 3 valid, 3 test), " in done.output
    assert done.output.endswith(".1-of-3.h5 and 2 more\n")
    for wrong in ("4/3", ""):  # what a scheduler did not set is not all
        refused = seqdens_prepare(*little, "--shard", wrong)
        assert refused.exit_code == 2
        assert f"Error: shard {wrong!r} must read I/N" in refused.output
