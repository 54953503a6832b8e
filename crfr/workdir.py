"""The work directory of a run: its config and its starts (docs/architecture.md, Files)."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from crfr import environment
from crfr.errors import InputError
from crfr.urls import public

CONFIG, RUN, CHECKPOINTS = "config.json", "run.json", "checkpoints"
MARKER = "commit_success.txt"  # Orbax's own, its last file of a checkpoint; it holds no data
SHARED_WITHIN = 60  # seconds: network file systems show new files late


def read_config(workdir: Path) -> dict[str, Any]:
    """The config of a training run; InputError where the folder is none."""
    return _read(workdir, CONFIG)


def read_starts(workdir: Path) -> list[dict[str, Any]]:
    """The starts of a training run, the latest last; InputError where the folder is none."""
    return _read(workdir, RUN)


def _read(workdir: Path, name: str) -> Any:
    path = workdir / name
    if not path.is_file():
        raise InputError(f"{workdir}: no {name} there; give the --workdir of a training run")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); the file is damaged") from error


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config as one level, with dots in the keys."""
    found = {}
    for name, value in values.items():
        inner = isinstance(value, dict)
        found |= flat(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return found


def _public(values: dict[str, Any]) -> dict[str, Any]:
    """The config without signatures of URLs, which have no place in a file and are renewed."""
    shown = {}
    for name, value in values.items():
        text = public(value) if isinstance(value, str) else value
        shown[name] = _public(value) if isinstance(value, dict) else text
    return shown


def checkpoint_folder(workdir: Path, config: dict[str, Any]) -> str:
    """Where the checkpoints of a run are, a folder or a bucket's URL; `config` is nested."""
    return config["run"].get("checkpoints") or str(workdir / CHECKPOINTS)


def checkpoint_path(folder: str | Path) -> epath.Path:
    """A folder of checkpoints, there or not, local or a bucket's; InputError where the bucket's
    file system is not installed.
    """
    if "://" not in str(folder):
        return epath.Path(Path(folder).resolve())
    try:
        path = epath.Path(folder)
        path.is_dir()
    except ImportError as error:
        raise InputError(f"{folder}: needs the extra: pip install 'crfr[gcs]'") from error
    return path


def latest_step(workdir: Path) -> int:
    """The step of the latest complete checkpoint, unchecked; 0 without one or a work directory."""
    if not (workdir / CONFIG).is_file():
        return 0
    name = checkpoint_folder(workdir, read_config(workdir))
    folder = checkpoint_path(name)
    paths = [path for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []
    if "://" in name:  # there a save has its name from its first file on
        paths = [path for path in paths if (path / MARKER).exists()]
    return max((int(path.name) for path in paths), default=0)


def check_same_config(workdir: Path, config: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Refuse a config that differs from the run's.  Keys under `run` may, except `run.checkpoints`;
    before the first checkpoint all may.

    `config` and `defaults` are nested dicts of JSON values; `defaults` stand in for keys that the
    crfr which began the run did not have.
    """
    if not latest_step(workdir):
        return
    place = "run.checkpoints"
    before, now = flat(defaults) | flat(read_config(workdir)), flat(_public(config))
    differing = [
        f"{key} (was {before.get(key)!r}, now {now.get(key)!r})"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key) and (key == place or not key.startswith("run."))
    ]
    if differing:
        raise InputError(
            f"{workdir}: its run has another config: {', '.join(differing)}; go on with the old "
            "values or choose another folder"
        )


@contextlib.contextmanager
def open_workdir(workdir: Path, config: dict[str, Any], defaults: dict[str, Any]) -> Iterator[None]:
    """Make the work directory, or check that its run has this config (`check_same_config`), and
    keep other trainings from it for a `with`.

    Raises InputError naming the differing keys, or where the folder cannot be written; BusyError
    where another training works in it.
    """
    with contextlib.ExitStack() as stack:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            busy = f"--workdir={workdir}: another crfr train works there; wait until it has ended"
            stack.enter_context(environment.locked(workdir, busy))
            check_same_config(workdir, config, defaults)
            environment.write_json(workdir / CONFIG, _public(config))
        except OSError as error:
            raise InputError(
                f"--workdir={workdir}: {error.strerror}; choose a folder that can be written"
            ) from error
        yield


def see_config(workdir: Path, config: dict[str, Any]) -> None:
    """Wait until the config that process 0 wrote is seen here; InputError where it is not."""
    deadline = time.monotonic() + SHARED_WITHIN
    while not (workdir / CONFIG).exists() or read_config(workdir) != _public(config):
        if time.monotonic() > deadline:
            raise InputError(
                f"--workdir={workdir}: what process 0 writes there is not seen by this one after "
                f"{SHARED_WITHIN} s; choose a folder of storage that all hosts share"
            )
        time.sleep(0.2)


def check_own_checkpoints(workdir: Path, folder: str, steps: list[int]) -> None:
    """Refuse a folder with checkpoints in a work directory that has not made any."""
    if steps and not (workdir / RUN).exists():
        raise InputError(
            f"{folder}: holds checkpoints of another run (steps {steps}); choose another "
            "--config.run.checkpoints, or the --workdir of that run"
        )


def check_same_data(workdir: Path, **facts: int) -> None:
    """Refuse to go on with other data: `facts` are the counts that the last start recorded."""
    before = read_starts(workdir)[-1]
    for name, value in facts.items():
        if before[name] != value:
            raise InputError(
                f"{workdir}: its run has {before[name]} {name}, the data now has {value}; give the "
                "data it began with or choose another folder"
            )


def record_start(workdir: Path, **facts: Any) -> None:
    """Add a start to run.json: when, by which command, commit and versions, and `facts`."""
    starts = read_starts(workdir) if (workdir / RUN).exists() else []
    starts.append(
        {
            "started": environment.now(),
            "command": environment.command(),
            "commit": environment.commit(),
            "versions": environment.versions(),
            **facts,
        }
    )
    environment.write_json(workdir / RUN, starts)
