"""Random access to the tf.train.Example records of `.array_record` files, without TensorFlow.

The files are read through array_record, whose data source TFDS and Grain use too.  Its
`read([i])` costs 2 ns for every record of the file, 0.4 ms in a file of 150,000, where
`read(i, i + 1)` costs 7 us in all; so this module calls the latter itself.

tf.train.Example on the wire (protobuf; every number a varint unless said otherwise):

    Example  = features: message 1          Features = map 1 of name: string 1, Feature: message 2
    Feature  = bytes list: message 1 | float list: message 2 | int64 list: message 3
    a list   = its values as field 1, repeated; numbers one by one or packed in one field
"""

import errno
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from crfr.errors import InputError, one_line

DAMAGED = "copy the file again from its source, or write the dataset again"
# Random access: no read-ahead, no threads of its own, and reads of about one record.
OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
BUFFER = 32768
OPENERS = 16  # files opened at a time; on a network disk each waits for its own round trips


class Shard(NamedTuple):
    path: str
    start: int = 0  # the first record that counts
    count: int | None = None  # how many count; None: all that the file holds
    total: int | None = None  # how many the file has to hold; None: nothing else says it


class ExampleFiles:
    """The records of `.array_record` files, one file after the other.

    Threads may share it, and a pickled one opens its files anew where it arrives.  InputError for
    a file that is missing, cut short or of another length than its Shard says: all are opened
    once, for a file's table of records is at its end.
    """

    def __init__(self, shards: Sequence[Shard]):
        with ThreadPoolExecutor(OPENERS) as pool:
            held = list(pool.map(count_records, [shard.path for shard in shards]))
        for shard, number in zip(shards, held, strict=True):
            if shard.total not in (None, number):
                raise InputError(
                    f"{shard.path}: holds {number} records where the dataset's "
                    f"metadata say {shard.total}; {DAMAGED}"
                )
        self._paths = [shard.path for shard in shards]
        self._starts = [shard.start for shard in shards]
        counts = [n if s.count is None else s.count for s, n in zip(shards, held, strict=True)]
        self._ends = np.cumsum(counts, dtype=np.int64)  # of each file's records, by index
        self._renew()

    def _renew(self) -> None:
        self._readers: list[Any] = [None] * len(self._paths)
        self._lock = threading.Lock()

    def __getstate__(self) -> dict:
        return {k: v for k, v in self.__dict__.items() if k not in ("_readers", "_lock")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._renew()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _locate(self, index: int) -> tuple[int, int]:
        """(which file, the record's position in it)."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} is outside 0..{len(self) - 1}")
        file = int(np.searchsorted(self._ends, index, side="right"))
        before = int(self._ends[file - 1]) if file else 0
        return file, self._starts[file] + index - before

    def path(self, file: int) -> str:
        return self._paths[file]

    def where(self, index: int) -> str:
        """Names the record in error messages."""
        file, position = self._locate(index)
        return f"{self._paths[file]}, record {position}"

    def read(self, index: int) -> dict[str, list]:
        """The features of a record, as `parse_example` gives them; InputError if damaged."""
        file, position = self._locate(index)
        reader = self._readers[file]
        if reader is None:
            with self._lock:
                reader = self._readers[file]
                if reader is None:
                    reader = self._readers[file] = open_file(self._paths[file])
        try:
            return parse_example(reader.read(position, position + 1)[0])
        except (RuntimeError, IndexError, ValueError) as error:
            raise InputError(f"{self.where(index)}: {one_line(error)}; {DAMAGED}") from error


def open_file(path: str) -> Any:
    """An array_record reader of the file; InputError if it is missing or damaged."""
    try:
        from array_record.python.array_record_module import ArrayRecordReader
    except ImportError as error:
        raise InputError(
            f"{path}: array_record cannot be imported ({error}); pip install array-record, which "
            "is there for Linux and macOS"
        ) from error
    try:
        # array_record shows a file that it cannot open as one of 0 records, and no reason.
        with open(path, "rb") as file:
            file.seek(0, 2)
            size = file.tell()
    except OSError as error:
        many = error.errno == errno.EMFILE  # every shard stays open
        remedy = "raise `ulimit -n`" if many else "check the path and its permissions"
        raise InputError(f"{path}: {error.strerror}; {remedy}") from error
    reader = ArrayRecordReader(path, OPTIONS, file_reader_buffer_size=BUFFER)
    if not reader.ok():
        raise InputError(
            f"{path}: {size} bytes that are no whole ArrayRecord file, but cut short or damaged; "
            f"{DAMAGED}"
        )
    return reader


def count_records(path: str) -> int:
    reader = open_file(path)
    number = reader.num_records()
    reader.close()
    return number


def parse_example(record: bytes) -> dict[str, list]:
    """The values of each feature of a tf.train.Example, as list[bytes] or list[int].

    Features of floats are left out.  ValueError where the record is no tf.train.Example: unlike
    protobuf, which skips unknown fields, this takes them for damage.
    """
    if not record:  # what array_record makes of a file that was cut short after it was opened
        raise ValueError("the record is empty")
    features = {}
    for _, message in fields(memoryview(record), 1):
        for _, entry in fields(message, 1):
            parts = list(fields(entry, 2))
            pair = dict(parts)
            if len(pair) != len(parts):
                raise ValueError("not a tf.train.Example: a feature of two names or values")
            name = str(as_message(pair.get(1, b"")), "utf-8")
            for kind, values in fields(pair.get(2, b""), 3):
                features.pop(name, None)  # the last one counts
                if kind == 1:
                    features[name] = [bytes(as_message(value)) for _, value in fields(values, 1)]
                elif kind == 3:
                    features[name] = integers(values)
    return features


def integers(message: memoryview | int) -> list[int]:
    """The values of an int64 list, one by one or packed."""
    values = []
    for _, value in fields(message, 1):
        if isinstance(value, int):
            values.append(value)
        else:
            at = 0
            while at < len(value):
                single, at = varint(value, at)
                values.append(single)
    return [value - 2**64 if value >= 2**63 else value for value in values]


def fields(message: memoryview | bytes | int, last: int) -> Iterator[tuple[int, memoryview | int]]:
    """(field number, value), numbers 1 to `last`, of a protobuf message: an int or its bytes."""
    message = as_message(message)
    at, end = 0, len(message)
    while at < end:
        key, at = varint(message, at)
        number, kind = key >> 3, key & 7
        if not 1 <= number <= last or kind not in (0, 2):
            raise ValueError(f"not a tf.train.Example: field {number} of wire type {kind}")
        value, at = varint(message, at)
        if kind == 2:
            if value > end - at:
                raise ValueError(f"not a tf.train.Example: {value} bytes where {end - at} are left")
            value, at = message[at : at + value], at + value
        yield number, value


def as_message(value: memoryview | bytes | int) -> memoryview:
    """The bytes of a field; ValueError for one that is a number."""
    if isinstance(value, int):
        raise ValueError("not a tf.train.Example: a number where bytes belong")
    return memoryview(value)


def varint(message: memoryview, at: int) -> tuple[int, int]:
    """(the number at byte `at` of a protobuf message, the byte after it); seven bits a byte, the
    lowest first.
    """
    number = 0
    for shift in range(0, 70, 7):
        if at == len(message):
            raise ValueError("not a protobuf message: it ends inside a number")
        byte = message[at]
        number |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return number & (2**64 - 1), at
    raise ValueError("not a protobuf message: a number of more than 10 bytes")
