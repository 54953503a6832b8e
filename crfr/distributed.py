"""Several processes, on one host or on many, as one program: JAX's multi-controller runtime.

Every process runs the same command.  `joined` brings them together before anything touches a
device; what they have to agree on goes through agreement.py.  A process that fails by itself says
so to the others and leaves at once, so that none waits for it (docs/distributed.md).
"""

import contextlib
import multiprocessing
import os
import re
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

import jax

from crfr.agreement import SharedError, leader
from crfr.errors import InputError, actionable, first_line

BEYOND = 60  # seconds: JAX's own limits lie behind ours, for it ends a process by an abort
FAILED = "crfr/failed"  # key of the coordinator's store: exit code, process and words
WATCHING = 1.0  # seconds between two looks at it
WEEK = 7 * 24 * 3600  # seconds
LOST = 75  # exit code: another process was lost (EX_TEMPFAIL of sysexits.h)
# What JAX raises where another process is gone
GONE = re.compile(r"gloo|nccl|rccl|connection (reset|closed)|heartbeat|coordination|barrier", re.I)


@contextlib.contextmanager
def joined(
    coordinator: str | None,
    processes: int | None,
    process: int | None,
    *,
    connect_timeout: int,
    lost_after: int,
) -> Iterator[None]:
    """This process as one of several, for a `with`; before anything touches a device.

    All three of `coordinator` (HOST:PORT, of process 0), `processes` and `process`, or none of
    them: then they are what Slurm, Open MPI, Kubernetes or a TPU pod says, as JAX detects them.
    `connect_timeout` and `lost_after` are in seconds: until all are there, and until one that is
    not heard of any more is given up.  In others than process 0 stdout leads nowhere from here on.

    Raises InputError where nothing is detected or the processes differ in their devices; a process
    that does not meet the others in time ends with code LOST.  Inside, an error that is not
    everybody's ends this process at once: with code 2 for an InputError and a full or forbidden
    disk, LOST where it comes of another one's end, 130 for Ctrl-C, else 1.
    """
    _initialize(coordinator, processes, process, connect_timeout, lost_after)
    over, ending = threading.Event(), threading.Lock()
    watcher = threading.Thread(target=_watch, args=(over, ending), daemon=True)
    watcher.start()
    try:
        if not leader():
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if jax.local_device_count() * jax.process_count() != jax.device_count():
            raise InputError(
                f"--distributed: {jax.local_device_count()} devices here, of {jax.device_count()} "
                f"in {jax.process_count()} processes: give each process the same number"
            )
        yield
    except SharedError:
        if leader():
            raise
        sys.exit(2)
    except SystemExit:  # agreed upon: a signal
        raise
    except BaseException as error:
        _leave(error, ending)
    finally:
        over.set()
        watcher.join()


def _initialize(
    coordinator: str | None,
    processes: int | None,
    process: int | None,
    connect_timeout: int,
    lost_after: int,
) -> None:
    explicit = _check(coordinator, processes, process)
    # Would take SIGTERM from us, and know nothing of Ctrl-C: train/stops.py agrees on both.
    jax.config.update("jax_enable_preemption_service", False)
    # An unsuccessful start ends by an abort inside JAX, so ours has to come before.
    alarm = threading.Timer(
        connect_timeout, _give_up, (coordinator, processes, process, connect_timeout)
    )
    alarm.daemon = True
    alarm.start()
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            jax.distributed.initialize(
                coordinator,
                processes,
                process,
                cluster_detection_method="deactivate" if explicit else None,
                initialization_timeout=connect_timeout + BEYOND,
                heartbeat_timeout_seconds=lost_after,
                # who is done waits for the others, of whom a dead one is noticed by its heartbeat
                shutdown_timeout_seconds=WEEK,
            )
    # detection asks environments, name servers and APIs, and lets through whatever they raise
    except Exception as error:
        if not explicit and "coordinator_address should be defined" in str(error):
            hint = "".join(f"; {first_line(w.message)}" for w in warned)
            raise InputError(
                "--distributed: finds no Slurm step (srun), Open MPI, Kubernetes job or TPU pod "
                "here; give --coordinator=HOST:PORT --processes=N --process=I, I from 0 and HOST "
                f"that of process 0{hint}"
            ) from error
        raise InputError(
            f"--distributed: cannot start ({first_line(error)}); give another "
            "--coordinator=HOST:PORT, or --coordinator, --processes and --process where the "
            "cluster's own settings do not serve"
        ) from error
    finally:
        alarm.cancel()


def _check(coordinator: str | None, processes: int | None, process: int | None) -> bool:
    """Whether the flags give the place of this process; InputError where they do by halves."""
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return False
    if missing:
        raise InputError(f"--distributed: {' and '.join(missing)} missing; give all three, or none")
    assert coordinator is not None
    assert processes is not None
    assert process is not None
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(f"--coordinator={coordinator}: is not HOST:PORT, as 10.0.0.1:1234")
    if not 0 <= process < processes:
        raise InputError(f"--process={process}: of {processes} processes they are 0 to N - 1")
    if process == 0:
        _check_free(coordinator, int(port))
    return True


def _check_free(coordinator: str, port: int) -> None:
    """InputError where something listens on the port, upon which JAX's service may crash."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=both).close()
    except OSError as error:
        raise InputError(
            f"--distributed: the coordinator's port is taken ({os.strerror(error.errno or 0)}); "
            f"give another --coordinator than {coordinator}"
        ) from error


def _give_up(
    coordinator: str | None, processes: int | None, process: int | None, seconds: int
) -> None:
    """End this process, which waits inside JAX for the others."""
    why = f"not all of the {processes} processes have come"
    if coordinator is None:
        why = "the cluster's processes have not all come"
    elif process:
        host, _, port = coordinator.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
        except OSError as error:
            why = f"the coordinator {coordinator} cannot be reached ({error.strerror or error})"
    print(
        f"crfr: --distributed: after {seconds} s {why}; start all of them within "
        "--connect-timeout=SECONDS, with one --coordinator that every host reaches",
        file=sys.stderr,
        flush=True,
    )
    os._exit(LOST)  # a host that comes late is no fault of the command


def _leave(error: BaseException, ending: threading.Lock) -> NoReturn:
    """Tell the others why this process has failed, and end it at once: leaving in good order would
    wait for them, and they for us.
    """
    gone = _of_another(error)
    if gone:  # the watcher may learn from that one why, and end this process with it
        time.sleep(2 * WATCHING)
    ending.acquire()  # and keep: a process ends once, for one reason
    if gone:
        text = f"has lost another process ({first_line(error)}), which may have said why; the same"
        _end(f"{text} command goes on from the last checkpoint", LOST, _last())
    if (text := actionable(error)) is not None:
        code = 2
    elif isinstance(error, KeyboardInterrupt):
        text, code = "interrupted", 130
    else:
        traceback.print_exception(error)
        text, code = first_line(f"{type(error).__name__}: {error}"), 1
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # it is there: another one has failed too
        _client().key_value_set(FAILED, f"{code} {jax.process_index()} {text}")
    # for the others to see it while this process is still connected to them
    _end(text, code, linger=2 * WATCHING)


def _of_another(error: BaseException) -> bool:
    """Whether an error comes of another process's end."""
    kinds = jax.errors.JaxRuntimeError | ValueError | TimeoutError  # the last is Orbax's
    # servers that data come from close connections too, which an InputError says
    ours = isinstance(error, kinds) and not isinstance(error, InputError)
    return ours and GONE.search(str(error)) is not None


def _watch(over: threading.Event, ending: threading.Lock) -> None:
    """End this process soon after another one has failed; for a thread, until `over`."""
    while not over.wait(WATCHING):
        try:
            failed = _client().key_value_try_get(FAILED)
        except jax.errors.JaxRuntimeError:
            continue  # none has; or the coordinator is gone, upon which JAX ends this process
        ending.acquire()
        code, process, text = failed.split(" ", 2)
        _end(f"ends, for process {process} has failed: {text}", int(code), _last())


def _last() -> float:
    """Seconds for which the coordinator waits: JAX aborts those that it leaves behind."""
    return 4 * WATCHING if leader() else 0.0


def _end(text: str, code: int, linger: float = 0.0) -> NoReturn:
    where = f"crfr: process {jax.process_index()} of {jax.process_count()}"
    print(f"{where}: {text}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(linger)
    for child in multiprocessing.active_children():  # readers of data
        child.terminate()
    os._exit(code)


def _client() -> Any:
    """JAX's connection to the coordinator, which has no public name; Orbax uses it too."""
    from jax._src import distributed

    return distributed.global_state.client
