"""The sdist, the wheel built from it, and the version that both carry."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from email import message_from_bytes
from pathlib import Path

import pytest

from seqdens.version import __version__

ROOT = Path(__file__).parents[1]
WORDS = {"README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md"}
FOLDERS = {name for name in ("seqdens", "tests", "docs", "plugins") if (ROOT / name).is_dir()}
SETTINGS = {"pyproject.toml", "conftest.py"}
BUILT_FROM = {".cpp", ".h"}

NAME = f"seqdens-{__version__}"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, since a build leaves files among them."""
    copy = tmp_path_factory.mktemp("source")
    for name in WORDS | SETTINGS:
        shutil.copy(ROOT / name, copy)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    return copy


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the sdist and the wheel."""
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob(f"{NAME}-py3-none-*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture
def files(source: Path) -> Callable[[Iterable[str]], set[str]]:
    """Call with folders for the names of all files in them."""
    return lambda folders: {
        path.relative_to(source).as_posix()
        for folder in folders
        for path in (source / folder).rglob("*")
        if path.is_file()
    }


@pytest.mark.usefixtures("library")
def test_the_wheel_holds_the_package_and_nothing_else(
    wheel: zipfile.ZipFile, files: Callable[[Iterable[str]], set[str]]
) -> None:
    held = {name for name in wheel.namelist() if not name.startswith(f"{NAME}.dist-info/")}
    sources = {name for name in files(["seqdens"]) if Path(name).suffix in BUILT_FROM or "CMake" in name}
    assert held == (files(["seqdens"]) - sources) | {"seqdens/native/libseqdens.so"}
    assert "seqdens/py.typed" in held


@pytest.mark.usefixtures("library")
def test_the_wheel_is_of_this_platform_and_of_every_python(wheel: zipfile.ZipFile) -> None:
    tags = message_from_bytes(wheel.read(f"{NAME}.dist-info/WHEEL"))
    assert tags.get_all("Tag") == [Path(str(wheel.filename)).stem.removeprefix(f"{NAME}-")]
    assert "-none-any" not in tags["Tag"]


def test_without_a_compiler_the_wheel_has_no_library(source: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"CXX": "no-compiler"})
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(tmp_path / f"{NAME}-py3-none-any.whl") as wheel:
        assert not [name for name in wheel.namelist() if name.endswith((".so", ".cpp"))]


def test_the_sdist_holds_all_sources(built: Path, files: Callable[[Iterable[str]], set[str]]) -> None:
    with tarfile.open(built / f"{NAME}.tar.gz") as archive:
        held = {member.name.removeprefix(f"{NAME}/") for member in archive if member.isfile()}
    assert held - {"PKG-INFO"} == files(FOLDERS) | WORDS | SETTINGS


def test_the_metadata_names_version_licence_and_command(wheel: zipfile.ZipFile) -> None:
    metadata = message_from_bytes(wheel.read(f"{NAME}.dist-info/METADATA"))
    assert (metadata["Version"], metadata["License-Expression"]) == (__version__, "MIT")
    assert metadata.get_payload() == (ROOT / "README.md").read_text(encoding="utf-8")
    assert b"seqdens = seqdens.cli:main\n" in wheel.read(f"{NAME}.dist-info/entry_points.txt")


def test_the_changelog_begins_with_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0] == __version__
