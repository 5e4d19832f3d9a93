"""A run folder: `config.toml`, `metrics.csv`, weights, trainer state and pictures of one training run."""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import tomli_w

from seqdens.errors import DataError, UsageError
from seqdens.files import LOCK, clear_leftovers, hold, is_at, make_folder, replacing, writing
from seqdens.registry import one_line

FILES = (
    "config.toml",
    "metrics.csv",
    "skipped.csv",
    "best.safetensors",
    "last.safetensors",
    "trainer.pt",
    "samples.svg",
    "samples.png",
    "samples.csv",
    "loss.png",
)
LARGEST_CONFIG = 1 << 20  # bytes
DEEPEST = 32  # parts of a key, a.b.c
DEEP_KEY = re.compile(rb"(?:\.[ \t]*(?:[\w-]+|\"[^\"\n]*\"|'[^'\n]*')[ \t]*){%d}" % DEEPEST)


class Run:
    """One run: its folder and its resolved configuration (what `config.toml` holds)."""

    def __init__(self, path: str | Path, config: dict[str, Any] | None = None) -> None:
        self.path, self.config = Path(path), config or {}
        self._lock: BinaryIO | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def exists(self) -> bool:
        return self.config_file.exists()

    @property
    def config_file(self) -> Path:
        return self.path / "config.toml"

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        return self.path / "last.safetensors"

    @property
    def trainer_state(self) -> Path:
        return self.path / "trainer.pt"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def skipped(self) -> Path:
        return self.path / "skipped.csv"

    def check_free(self, *, overwrite: bool = False) -> None:
        """Raises `UsageError` where a file is in the way, or a run (even part of one) that may not be replaced."""
        self._check_folder()
        there = [name for name in FILES if (self.path / name).exists()]
        if there and not overwrite:
            ways = "--resume to continue it, or --overwrite" if self.exists else "--overwrite, or another folder"
            raise UsageError(f"{self.path} already holds a run ({there[0]}); use {ways}.")

    def check_resumable(self) -> None:
        """Raises `DataError` where there are weights, which training anew would replace, but no state to go on from."""
        weights = [path.name for path in (self.best, self.last) if path.exists()]
        if weights and not self.trainer_state.exists():
            raise DataError(
                f"{self.path} holds {' and '.join(weights)}, which can be used, but no trainer.pt to go on from; "
                "start again in another folder, or with --overwrite, which deletes them."
            )

    def start(self, *, overwrite: bool = False) -> None:
        """Make the folder, rid of a run before, and write the configuration; raises what `check_free` raises."""
        self.check_free(overwrite=overwrite)
        for name in FILES:
            with writing(self.path / name):
                (self.path / name).unlink(missing_ok=True)
        self.write_config()

    @contextmanager
    def opened(self, *, resume: bool = False, overwrite: bool = False) -> Iterator[None]:
        """Within the block, the folder for this run alone: begun anew as by `start`, or as it is, to `resume`.

        Raises what `held`, `start` and `check_resumable` raise.
        """
        with self.held():
            self._resume() if resume else self.start(overwrite=overwrite)
            yield

    def _resume(self) -> None:
        self.check_resumable()
        if self.config and not self.trainer_state.exists():
            self.write_config()  # killed in its first epoch, it begins again by these options

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within the block, the folder for this run alone, rid of what a killed process left of its temporary files.

        The system holds it, so that it is free once the process has ended, however it did; but a file system
        without locks keeps nobody out. Raises `UsageError` where another run is using the folder, before
        anything in it is touched, and `DataError` where nothing can be written.
        """
        if self._lock:
            yield
            return
        self._check_folder()
        with writing(self.path):
            make_folder(self.path)
            self._lock = hold(self.path)
        if not self._lock:
            raise UsageError(
                f"{self.path}: another run is using it; wait until it has ended, or choose another folder (--out)."
            )
        with self._lock:
            try:
                for name in FILES:
                    clear_leftovers(self.path / name)
                self.check_held()
                yield
            finally:
                with suppress(OSError):  # Windows keeps a file that is open
                    if is_at(self._lock, self.path / LOCK):
                        (self.path / LOCK).unlink()
                self._lock = None

    def check_held(self) -> None:
        """Raises `DataError` where the folder that was opened is gone, or another is in its place: nothing is its."""
        if self._lock and not is_at(self._lock, self.path / LOCK):
            raise DataError(
                f"{self.path} was deleted, moved or replaced while the run was using it; put it back and go on with "
                "--resume, or start again."
            )

    def _check_folder(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file; name a folder for the run.")

    def write_config(self) -> None:
        with replacing(self.config_file) as temporary:
            temporary.write_text(tomli_w.dumps(without_none(self.config)), encoding="utf-8")

    def read_metrics(self) -> list[dict[str, float]]:
        """One row an epoch; raises `DataError` for a file of something else."""
        if not self.metrics.exists():
            return []
        try:
            with self.metrics.open(newline="") as file:
                header, *rows = [*csv.reader(file)] or [[]]
            return [dict(zip(header, map(float, row), strict=True)) for row in rows]
        except (ValueError, csv.Error) as error:
            raise DataError(
                f"{self.metrics} holds no losses of a run ({one_line(error)}); delete it: --resume makes it anew."
            ) from None

    def write_metrics(self, rows: list[dict[str, float]]) -> None:
        with replacing(self.metrics) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)

    def write_skipped(self, rows: Iterable[tuple[int, str]]) -> None:
        """The steps that were skipped before training failed, and the ids of their records."""
        with replacing(self.skipped) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("step", "record"))
            writer.writerows(rows)


def read_config(path: Path) -> dict[str, Any]:
    """A configuration file as nested dictionaries; raises `DataError` naming the file."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_CONFIG + 1)
        if len(content) > LARGEST_CONFIG:
            raise ValueError(f"it is larger than {LARGEST_CONFIG >> 20} MiB")
        if DEEP_KEY.search(content):  # whose time would grow with the square of its length
            raise ValueError(f"a key has more than {DEEPEST} parts")
        return tomllib.loads(content.decode())
    except FileNotFoundError:
        raise DataError(f"there is no configuration file {path}.") from None
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise DataError(f"{path} is no TOML file ({' '.join(str(error).split())}).") from None


def without_none(config: dict[str, Any]) -> dict[str, Any]:
    """`config` without options that are None, which TOML cannot say: absent means default."""
    return {
        name: without_none(value) if isinstance(value, dict) else value
        for name, value in config.items()
        if value is not None
    }
