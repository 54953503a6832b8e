"""Whether reading overlaps the device's work, of a profile that `crfr train --trace=N` wrote.

    crfr train --config=configs/st_m1.py --config.data=ms1m-raw --workdir=runs/st-m1 --trace=20
    python benchmarks/overlap.py runs/st-m1/traces

Of a folder the profiles of its newest start are read, one a process.  A row a device:

- busy: the union of its kernels, of the span from its first to its last; copies from and to the
  host are no kernels.
- reading: what the loop waited for its batches, and how much of that lay within the busy time and
  within an update that was under way (from its dispatch to its end: the device may stand between
  two kernels).  Reading ahead is what the threads did that read the batches; of `run.workers`,
  which are other processes, a profile has nothing.
- waiting for the update before it: what the loop waited for the device, as it should.
- The device waits for the loop where it had nothing to do when an update was dispatched, that is
  where the update before had ended: in that gap, as long as the loop read, it waits for the input,
  for the rest of it for the loop's other work and the dispatch.  What else is idle lies between
  the kernels of updates under way, and is not the loop's.
"""

import argparse
import itertools
from pathlib import Path

from jax.profiler import ProfileData

from crfr.bench.timing import keep
from crfr.bench.trace import device_lines
from crfr.data.batches import AHEAD
from crfr.errors import InputError
from crfr.train.tracing import DISPATCHING, READING, WAITING

COPIES = {"MemcpyH2D", "MemcpyD2H"}  # in a GPU's streams, beside the kernels
AT_ONCE = 0.1  # of an update: the loop waited no longer, so that the update before had ended


def union(intervals):
    """Sorted and disjoint: [(3, 5), (1, 2), (4, 6)] -> [(1, 2), (3, 6)]."""
    merged = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def common(first, second):
    """What two unions have in common, as a union."""
    found, i, j = [], 0, 0
    while i < len(first) and j < len(second):
        start, end = max(first[i][0], second[j][0]), min(first[i][1], second[j][1])
        if start < end:
            found.append((start, end))
        if first[i][1] < second[j][1]:
            i += 1
        else:
            j += 1
    return found


def length(intervals):
    return sum(end - start for start, end in intervals)


def gaps(merged):
    """Between the intervals of a union."""
    return [(a[1], b[0]) for a, b in itertools.pairwise(merged)]


def times(event):
    return event.start_ns, event.start_ns + event.duration_ns


def read_host(plane):
    """(CPU device -> its kernels, name -> the loop's and the readers' annotations)."""
    annotations = {name: [] for name in (READING, DISPATCHING, WAITING, AHEAD)}
    begun, ended = [], {}
    for event in (event for line in device_lines(plane) for event in line.events):
        if event.name in annotations:
            annotations[event.name].append(times(event))
            continue
        stats = dict(event.stats)
        if event.name.startswith("end: "):
            ended[stats.get("_c")] = event.start_ns
        elif "hlo_op" in stats:
            begun.append((f"CPU:{stats.get('device_ordinal', 0)}", times(event), stats.get("_p")))
    kernels = {}
    # what begins a kernel may return while other threads do its work, whose end is an event too
    for device, (start, end), number in begun:
        kernels.setdefault(device, []).append((start, max(end, ended.get(number, end))))
    return kernels, {name: sorted(found) for name, found in annotations.items()}


def read_profile(file):
    """(device -> its kernels, name -> the loop's and the readers' annotations), as (start, end)."""
    try:
        planes = list(ProfileData.from_file(str(file)).planes)
    except RuntimeError as error:
        raise InputError(f"{file}: is not a profile, or not whole: trace again") from error
    on_cpu, annotations, kernels = {}, {DISPATCHING: []}, {}
    for plane in planes:
        if plane.name == "/host:CPU":
            on_cpu, annotations = read_host(plane)
            continue
        events = (event for line in device_lines(plane) for event in line.events)
        found = [times(event) for event in events if event.name not in COPIES]
        if found:
            kernels[plane.name.removeprefix("/device:")] = found
    return kernels or on_cpu, annotations


def waits_for_the_loop(busy, annotations):
    """(start, dispatch, end) of each gap of a device in which the loop dispatched an update when
    the one before had ended.
    """
    dispatches, waits = annotations[DISPATCHING], annotations[WAITING]
    update = length(busy) / max(len(dispatches), 1)
    idle = gaps(busy)
    found, place = [], 0
    # a turn that an error cut short has no wait
    for (dispatched, _), (start, end) in zip(dispatches, waits, strict=False):
        while place < len(idle) and idle[place][1] <= dispatched:
            place += 1
        inside = place < len(idle) and idle[place][0] <= dispatched
        if inside and end - start < AT_ONCE * update:
            found.append((idle[place][0], dispatched, idle[place][1]))
    return found


def share(part, whole):
    return round(part / whole, 5) if whole else None


def shares(name, events, busy, undispatched):
    """What is said of events that read (each a union): their time, and how much of it lay where."""
    total = sum(map(length, events))
    while_busy = sum(length(common(event, busy)) for event in events)
    before = sum(length(common(event, undispatched)) for event in events)
    return {
        f"{name}_ms": round(total / 1e6, 4),
        f"{name}_share_while_busy": share(while_busy, total),
        f"{name}_share_during_an_update": share(total - before, total),
    }


def measure(kernels, annotations):
    """The figures of one device; times in ms, shares of the span unless their names say of what."""
    busy = union(kernels)
    span = [(busy[0][0], busy[-1][1])]
    waits = waits_for_the_loop(busy, annotations)
    undispatched = union((start, dispatch) for start, dispatch, _ in waits)
    starved = length(union((start, end) for start, _, end in waits))
    # before the first kernel that it saw, a profile does not tell whether the device worked
    reading, ahead = (
        [common([event], span) for event in annotations[name]] for name in (READING, AHEAD)
    )
    waiting = common(union(annotations[WAITING]), span)
    for_input = sum(length(common(event, undispatched)) for event in reading)
    whole = length(span)
    return {
        "steps": len(annotations[DISPATCHING]),
        "span_ms": round(whole / 1e6, 4),
        "busy_share": share(length(busy), whole),
        **shares("reading", reading, busy, undispatched),
        **shares("reading_ahead", ahead, busy, undispatched),
        "waiting_for_the_update_ms": round(length(waiting) / 1e6, 4),
        "longest_gap_ms": round(
            max((end - start for start, end in gaps(busy)), default=0) / 1e6, 4
        ),
        "waits_for_the_input": share(for_input, whole),
        "waits_for_the_loop_else": share(starved - for_input, whole),
    }


def show(row):
    def percent(name):
        return "-" if row[name] is None else f"{100 * row[name]:.2f} %"

    def read(name):
        return (
            f"{row[f'{name}_ms']:.2f} ms, {percent(f'{name}_share_while_busy')} of it while the "
            f"device was busy, {percent(f'{name}_share_during_an_update')} while an update was "
            "under way"
        )

    print(f"{row['profile']}, {row['device']}: {row['steps']} steps in {row['span_ms']:.1f} ms")
    print(f"  the device was busy {percent('busy_share')} of the time", end="")
    print(f"; its longest gap: {row['longest_gap_ms']:.3f} ms")
    print(f"  the loop read: {read('reading')}")
    print(f"  the readers read ahead: {read('reading_ahead')}")
    print(f"  the loop waited for the update before: {row['waiting_for_the_update_ms']:.1f} ms")
    print(f"  the device waited for the rest of the loop {percent('waits_for_the_loop_else')}")


def profiles(path):
    """The file, or a folder's of the newest start: one a process."""
    if path.is_file():
        return [path]
    found = sorted(path.rglob("*.xplane.pb"))
    if not found:
        raise InputError(f"{path}: no profile (*.xplane.pb) there; crfr train --trace=20 writes it")
    starts = [file.parent.name.partition("-process-")[0] for file in found]
    return [file for file, start in zip(found, starts, strict=True) if start == max(starts)]


def overlap(path):
    """A row of figures for each device of each profile."""
    rows = []
    for file in profiles(path):
        kernels, annotations = read_profile(file)
        if not kernels or not annotations[DISPATCHING]:
            lacking = "work of a device" if annotations[DISPATCHING] else "steps of crfr train"
            raise InputError(f"{file}: no {lacking} in it; crfr train --trace=20 writes both")
        name = f"{file.parent.name}/{file.name}"
        for device, found in sorted(kernels.items()):
            rows.append({"profile": name, "device": device, **measure(found, annotations)})
    return rows


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="a profile (*.xplane.pb) or a folder of them")
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    return parser


def main(arguments=None):
    parser = make_parser()
    flags = parser.parse_args(arguments)
    try:
        rows = overlap(flags.path)
    except InputError as error:
        parser.error(str(error))
    for row in rows:
        show(row)
    worst = max(row["waits_for_the_input"] for row in rows)
    keep("overlap", {"rows": rows, "waits_for_the_input": worst}, flags.out)
    print(f"the device waits for the input {100 * worst:.2f} % of the time")


if __name__ == "__main__":
    main()
