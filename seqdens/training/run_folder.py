"""A run folder: `config.toml`, `metrics.csv`, weights, trainer state and pictures of one training run."""

from __future__ import annotations

import csv
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from seqdens.errors import DataError, UsageError
from seqdens.files import replacing

FILES = (
    "config.toml",
    "metrics.csv",
    "best.safetensors",
    "last.safetensors",
    "trainer.pt",
    "samples.svg",
    "samples.png",
    "samples.csv",
    "loss.png",
)


@dataclass
class Run:
    """One run: its folder and its resolved configuration (what `config.toml` holds)."""

    path: Path
    config: dict[str, Any] = field(default_factory=dict)

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

    def check_free(self, *, overwrite: bool = False) -> None:
        """Raises `UsageError` where a file is in the way, or a run (even part of one) that may not be replaced."""
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file; name a folder for the run.")
        there = [name for name in FILES if (self.path / name).exists()]
        if there and not overwrite:
            raise UsageError(
                f"{self.path} already holds a run ({there[0]}); use --resume to continue it, or --overwrite."
            )

    def start(self, *, overwrite: bool = False) -> None:
        """Make the folder, rid of a run before, and write the configuration; raises what `check_free` raises."""
        self.check_free(overwrite=overwrite)
        self.path.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (self.path / name).unlink(missing_ok=True)
        self.write_config()

    def write_config(self) -> None:
        with replacing(self.config_file) as temporary:
            temporary.write_text(tomli_w.dumps(without_none(self.config)), encoding="utf-8")

    def read_metrics(self) -> list[dict[str, float]]:
        """One row an epoch."""
        if not self.metrics.exists():
            return []
        with self.metrics.open(newline="") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]

    def write_metrics(self, rows: list[dict[str, float]]) -> None:
        with replacing(self.metrics) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


def read_config(path: Path) -> dict[str, Any]:
    """A configuration file as nested dictionaries; raises `DataError` naming the file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"there is no configuration file {path}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise DataError(f"{path} is no TOML file ({error}).") from None


def without_none(config: dict[str, Any]) -> dict[str, Any]:
    """`config` without options that are None, which TOML cannot say: absent means default."""
    return {
        name: without_none(value) if isinstance(value, dict) else value
        for name, value in config.items()
        if value is not None
    }
