"""Scalars of a run: metrics.jsonl, one console line each, TensorBoard where asked for."""

import errno
import json
import math
import os
import time
from pathlib import Path
from typing import Any

from crfr.environment import read_lines, write_lines
from crfr.errors import InputError
from crfr.train.finite import DivergedError

FILE = "metrics.jsonl"


class Log:
    """Appends to `metrics.jsonl`; on a resume, lines later than the restored step are dropped.

    The clock goes on from the last line, so `seconds` is the run's duration without stopped time.
    Only where it `writes`, one of several processes, is anything written; all check the scalars.
    """

    def __init__(
        self,
        workdir: Path,
        step: int,
        *,
        tensorboard: bool = False,
        writes: bool = True,
    ):
        self._writer, self._file, self._start = None, None, time.monotonic()
        self.skipped = 0
        if not writes:
            return
        self._writer = _tensorboard_writer(workdir) if tensorboard else None
        self._path = workdir / FILE
        kept = [row for row in read_lines(self._path) if row["step"] <= step]
        write_lines(self._path, kept)
        self._file = self._path.open("ab", buffering=0)  # unbuffered: a line is there or failed
        self._start -= kept[-1]["seconds"] if kept else 0.0
        # of the run so far: a save writes the line of its step before
        self.skipped = next((r["skipped"] for r in reversed(kept) if "skipped" in r), 0)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._file is not None:
            self._file.close()
        if self._writer is not None:
            self._writer.close()

    def write(self, row: dict[str, Any], line: str) -> None:
        """One row (`step` and scalars or names) and its console line."""
        row = {**row, "seconds": round(time.monotonic() - self._start, 3)}
        for name, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise DivergedError(  # all have the same scalars
                    f"{name} is {value} at step {row['step']}: training has diverged; lower "
                    "schedule.learning_rate or add schedule.warmup_epochs"
                )
        if self._file is None:
            return
        data = (json.dumps(row, allow_nan=False) + "\n").encode()
        try:
            if self._file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise InputError(
                f"{self._path}: {error.strerror} at step {row['step']}; make room and run the same "
                "command again"
            ) from error
        if self._writer is not None:
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    self._writer.add_scalar(name, value, row["step"])
        print(line, flush=True)


def _tensorboard_writer(workdir: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            "run.tensorboard=True needs the extra: pip install 'crfr[tensorboard]'"
        ) from error
    return SummaryWriter(str(workdir / "tensorboard"))


def duration(seconds: float) -> str:
    """A duration for people: 42s, 3m05s, 2h07m.

    >>> [duration(s) for s in (42, 185, 7620)]
    ['42s', '3m05s', '2h07m']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
