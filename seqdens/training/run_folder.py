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


@dataclass
class Run:
    """One run: its folder and its resolved configuration (what `config.toml` holds)."""

    path: Path
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def exists(self) -> bool:
        return (self.path / "config.toml").exists()

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

    def refuse_existing(self) -> None:
        """Raises `UsageError` where the folder holds a run already."""
        if self.exists:
            raise UsageError(f"{self.path} already holds a run; use --resume to continue it, or --overwrite.")

    def start(self, *, overwrite: bool = False) -> None:
        """Make the folder and write the configuration; raises `UsageError` where it holds another run."""
        if not overwrite:
            self.refuse_existing()
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file; name a folder for the run.")
        self.path.mkdir(parents=True, exist_ok=True)
        for name in (self.trainer_state, self.metrics, self.best, self.last):
            name.unlink(missing_ok=True)
        self.write_config()

    def write_config(self) -> None:
        with replacing(self.path / "config.toml") as temporary:
            temporary.write_text(tomli_w.dumps(without_none(self.config)))

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
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"there is no configuration file {path}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} is no TOML file ({error}).") from None


def without_none(config: dict[str, Any]) -> dict[str, Any]:
    """`config` without options that are None, which TOML cannot say: absent means default."""
    return {
        name: without_none(value) if isinstance(value, dict) else value
        for name, value in config.items()
        if value is not None
    }
