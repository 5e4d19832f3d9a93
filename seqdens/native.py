"""C++ of the package, compiled for this machine when it is first wanted, and kept in the user's cache folder.

Nothing is compiled when seqdens is installed, so that one wheel is for every machine, and each gets the vector
instructions it has. Where there is no compiler, whoever asks is told, and has something slower to fall back on.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path

import platformdirs

from seqdens.errors import SeqdensError
from seqdens.files import replacing, writing

FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-shared", "-fPIC", "-w")


class CannotCompile(SeqdensError):
    """There is no compiler, or it does not compile this."""


def load(source: Path) -> ctypes.CDLL:
    """The library that `source` compiles to; raises `CannotCompile` with the reason, found out once a process."""
    found = _attempt(source)
    if isinstance(found, str):
        raise CannotCompile(found)
    return found


@cache
def _attempt(source: Path) -> ctypes.CDLL | str:
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++")), None)
    if compiler is None:
        return f"there is no C++ compiler to compile {source.name}; install g++, or set CXX."
    try:
        library = _library(source, compiler)
        keep_alone(library.parent)
        if not library.exists() or not is_ours_alone(library):
            _compile(source, compiler, library)
        try:
            return ctypes.CDLL(str(library))
        except OSError:  # it was damaged
            _compile(source, compiler, library)
            return ctypes.CDLL(str(library))
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if "error" in line] or error.stderr.splitlines()
        reason = lines[0] if lines else f"it ends with status {error.returncode}"
        return f"{compiler} does not compile {source.name}: {reason}."
    except (OSError, SeqdensError) as error:
        return f"{source.name} cannot be compiled or loaded: {str(error).rstrip('.')}."


def _compile(source: Path, compiler: str, library: Path) -> None:
    with replacing(library) as temporary:
        _run([*compiler.split(), *FLAGS, "-o", str(temporary), str(source)], temporary.parent)
        temporary.chmod(0o700)


def _run(command: list[str], temporary: Path | None = None) -> str:
    """What it prints; its own files go to the folder `temporary`. A Ctrl-C is not for it, but for who waits for it."""
    variables = os.environ | ({"TMPDIR": str(temporary)} if temporary else {})
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=variables, process_group=0)
    return done.stdout


def keep_alone(folder: Path) -> None:
    """Make the folder, in which nobody else may write: what lies there is run.

    Raises `SeqdensError` where it belongs to somebody else.
    """
    with writing(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not is_ours_alone(folder):
            if folder.stat().st_uid not in (0, os.geteuid()):
                raise SeqdensError(f"{folder} belongs to another user, whose code is not run; set XDG_CACHE_HOME.")
            folder.chmod(0o700)


def is_ours_alone(path: Path) -> bool:
    """Whether nobody but the system's owner may write there too; where users are not told apart, it is taken so."""
    found = path.stat()
    return os.name != "posix" or (found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022)


def _library(source: Path, compiler: str) -> Path:
    """Where the library of this source with the headers beside it, compiler and processor is kept."""
    version = _run([*compiler.split(), "--version"])
    texts = [path.read_text(encoding="utf-8") for path in (source, *sorted(source.parent.glob("*.h")))]
    made_of = (*texts, compiler, version, " ".join(FLAGS), platform.machine(), _processor())
    digest = hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:16]
    return Path(platformdirs.user_cache_dir("seqdens")) / "native" / f"{source.stem}-{digest}.so"


def _processor() -> str:
    """What tells processors of different instructions apart: a home may be shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
