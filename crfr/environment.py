"""What a result was made with: versions, devices, commit, command — and files that are never half
written.
"""

import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from crfr.errors import BusyError, InputError
from crfr.urls import public

PACKAGES = (
    "crfr",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
    "ml_collections",
    "onnxruntime",
)


def versions() -> dict[str, str]:
    """Package -> installed version, of what the results depend on, and Python's."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # a source tree that is run without being installed
    return found


def commit() -> str | None:
    """The git commit of the crfr that runs, with "-dirty" where files differ from it; None outside
    git.
    """
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # a crfr installed inside some other project's checkout must not claim that project's commit
        if not git("ls-files", "environment.py"):
            return None
        # results beside the code are no change of it
        changed = git("status", "--porcelain", "--", ".", "../configs")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def command() -> str:
    """The command line as typed, but for signatures and passwords in URLs."""
    return shlex.join([Path(sys.argv[0]).name, *map(public, sys.argv[1:])])


def made_with() -> dict[str, object]:
    """What figures were made with: `versions`, `commit` and `command`."""
    return {"versions": versions(), "commit": commit(), "command": command()}


def keep_programs() -> None:
    """Keep the programs that JAX compiles from now on in `cache_folder`/programs, so that a resumed
    run, or another one like it, need not compile them again.

    JAX's own JAX_COMPILATION_CACHE_DIR takes precedence.  Nothing is kept on a CPU: its programs
    are made for one processor's instructions, and a home folder may serve machines of several
    kinds.
    """
    import jax

    if jax.config.jax_compilation_cache_dir or jax.default_backend() == "cpu":  # pyright: ignore[reportAttributeAccessIssue]
        return
    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "programs"))


def cache_folder() -> Path:
    """Where crfr keeps what it can make again: $CRFR_CACHE, or else ~/.cache/crfr."""
    return Path(os.environ.get("CRFR_CACHE") or "~/.cache/crfr").expanduser()


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def file_name(name: str) -> str:
    """A name that may hold any character, as the name of a file or folder.

    >>> file_name("faces:seed=1/2")
    'faces%3Aseed%3D1%2F2'
    """
    quoted = urllib.parse.quote(name, safe="")
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted  # "..", and hidden files


def cores() -> int:
    """The cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@contextlib.contextmanager
def locked(folder: Path, busy: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock on an existing folder, for a `with`.

    Where another process holds it: BusyError with the message `busy`, or with `wait` wait for it.
    """
    lock = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems have no locks; the last of these errors says so.
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                raise BusyError(busy) from error
        yield
    finally:
        os.close(lock)


def make_folder(folder: Path, place: str, remedy: str) -> None:
    """Make a folder, and those above it; InputError `PLACE: why; REMEDY` where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{place}: {error.strerror}; {remedy}") from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    data = content.encode() if isinstance(content, str) else content
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when it is complete.

    InputError, naming the file, where it cannot be written.
    """
    try:
        with _replacing(path) as file:
            yield file
    except OSError as error:  # that of a full disk names no file
        raise InputError(f"{path}: {error.strerror}; make room or choose another place") from error


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's 0600 would hide results from colleagues
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_json(path: Path, value: object) -> None:
    """Write a JSON file, whole or not at all; ValueError for NaN and infinities."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_lines(path: Path) -> list[dict]:
    """The JSON objects of a .jsonl file, none where there is no file; a last line that a kill has
    torn is left out.  InputError for a line that is not JSON.
    """
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_text().splitlines(keepends=True), 1):
        if line.endswith("\n"):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise InputError(f"{path}: line {number} is not JSON; delete that line") from error
    return rows


def write_lines(path: Path, rows: list[dict]) -> None:
    """Write a .jsonl file, whole or not at all; ValueError for NaN and infinities."""
    write_atomically(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
