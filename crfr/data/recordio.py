"""MXNet RecordIO without MXNet: random access to the records of a `.rec` through its `.idx`.

The format (dmlc-core's recordio.h, MXNet's image_recordio.h), little-endian throughout:

    part    = u32 magic 0xced7230a | u32 (flag << 29 | length) | data[length] | zeros to 4 bytes
    record  = one part of flag 0, or parts of flags 1, 2, ..., 2, 3
    payload = u32 flag | f32 label | u64 id | u64 id2 | flag x f32 labels | body (an encoded image)
    .idx    = text lines "key<TAB>offset of the record in the .rec"

A writer splits a payload where the magic occurs at an offset divisible by 4 and drops those four
bytes; the reader joins the parts with the magic.  That makes an aligned magic the sure sign of a
part, so a reader can tell a damaged length from a sound one: the next part must begin where this
one ends.
"""

import difflib
import os
import struct
import weakref
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from crfr.errors import InputError

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
PART = struct.Struct("<II")
HEADER = struct.Struct("<IfQQ")
# One system call fetches a whole record of a 112 px JPEG (4 to 8 kB); longer ones need a second.
READ_AHEAD = 16384
DAMAGED = "copy the pack again from its source, or pack it again"


class Record(NamedTuple):
    flag: int  # 0: one label, in the header; else the number of labels after the header
    labels: tuple[float, ...]
    body: bytes


def require_file(path: str | os.PathLike) -> Path:
    """`path` if it is a readable file; else InputError that names the nearest one in its folder."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name the file in it")
    if not path.is_file():
        folder = path.parent
        if not folder.is_dir():
            raise InputError(f"{path}: no such file, and no folder {folder}; check the path")
        names = [entry.name for entry in folder.iterdir() if entry.is_file()]
        near = difflib.get_close_matches(path.name, names, n=1)
        hint = f"did you mean {folder / near[0]}?" if near else "check the path"
        raise InputError(f"{path}: no such file; {hint}")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: not readable by this user; change its permissions")
    return path


def read_index(
    path: str | os.PathLike, size: int
) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
    """Keys in ascending order and their byte offsets, from the `.idx` of a `.rec` of `size` bytes.

    Parsed as arrays: an index of 5.8 million lines takes about a second and no Python object a
    line.  InputError names the first line that is malformed, repeated, or points where no record
    can be.
    """
    path = require_file(path)
    text = path.read_bytes().replace(b"\r\n", b"\n")
    if not text.strip():
        raise InputError(f"{path}: lists no records; {DAMAGED}")
    if not text.endswith(b"\n"):
        text += b"\n"
    raw = np.frombuffer(text, np.uint8)
    # In a sound index everything that is no digit alternates: tab, newline, tab, newline.  19
    # digits may exceed an int64.
    stops = np.flatnonzero((raw < ord("0")) | (raw > ord("9")))
    digits = np.diff(stops, prepend=-1) - 1
    wrong = raw[stops] != np.resize(np.frombuffer(b"\t\n", np.uint8), len(stops))
    wrong |= (digits < 1) | (digits > 18)
    if wrong.any():
        at = int(stops[np.argmax(wrong)])
        number = text.count(b"\n", 0, at) + 1
        line = text[text.rfind(b"\n", 0, at) + 1 :].split(b"\n", 1)[0][:60].decode("latin1")
        raise InputError(
            f"{path}, line {number}: {line!r} is not 'key<TAB>offset', two integers; {DAMAGED}"
        )
    lines = np.fromstring(text, np.int64, sep="\t").reshape(-1, 2)
    keys, offsets = np.ascontiguousarray(lines[:, 0]), np.ascontiguousarray(lines[:, 1])

    wrong = (offsets % 4 != 0) | (offsets > size - PART.size)
    if wrong.any():
        line = int(np.argmax(wrong))
        raise InputError(
            f"{path}, line {line + 1}: key {keys[line]} at byte {offsets[line]}, but records begin "
            f"at multiples of 4 inside the {size} bytes of the .rec; the two files do not belong "
            f"together or one is cut short: {DAMAGED}"
        )
    if (np.diff(keys) <= 0).any():  # key 0, the metadata, comes last in InsightFace's packs
        order = np.argsort(keys, kind="stable")
        keys, offsets = keys[order], offsets[order]
        repeated = np.diff(keys) == 0
        if repeated.any():
            key = keys[np.argmax(repeated)]
            raise InputError(f"{path}: key {key} occurs more than once; {DAMAGED}")
    return keys, offsets


class RecordFile:
    """The records of one `.rec`, in ascending order of their keys.

    Reading is `pread`: any number of threads and forked processes may share one RecordFile, and a
    pickled one opens the file anew where it arrives.  No mmap, for a file that shrinks while it is
    mapped kills the process.
    """

    path: str
    keys: Int64[np.ndarray, "n"]
    offsets: Int64[np.ndarray, "n"]

    def __init__(self, path: str | os.PathLike):
        self.path = str(require_file(path))
        self._open()
        index = Path(path).with_suffix(".idx")
        if not index.is_file():
            raise InputError(
                f"{path}: needs its index {index}, which does not exist; copy it from where the "
                "pack came from, or rebuild it with MXNet's tools/rec2idx.py"
            )
        self.keys, self.offsets = read_index(index, self._size)
        # A cut-off .idx would train on part of the data without a word.
        last = int(np.argmax(self.offsets))
        end = self._read(last)[1]
        if end != self._size:
            raise InputError(
                f"{index}: its last record, key {self.keys[last]}, ends at byte {end}, but {path} "
                f"has {self._size} bytes: the index is cut short or another pack's; {DAMAGED}"
            )

    def _open(self) -> None:
        self._file = os.open(self.path, os.O_RDONLY)
        self._close = weakref.finalize(self, os.close, self._file)
        self._size = os.fstat(self._file).st_size

    def __getstate__(self) -> dict:
        return {"path": self.path, "keys": self.keys, "offsets": self.offsets}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        require_file(self.path)
        self._open()

    def __len__(self) -> int:
        return len(self.keys)

    def where(self, position: int) -> str:
        """Names the record in error messages."""
        return f"{self.path}, key {self.keys[position]}"

    def read(self, position: int) -> bytes:
        """The payload of the record at `position` in the order of keys; InputError if damaged."""
        return self._read(position)[0]

    def record(self, position: int) -> Record:
        """The record at `position`, its header taken apart; InputError if damaged."""
        payload = self.read(position)
        if len(payload) < HEADER.size:
            raise InputError(
                f"{self.where(position)}: {len(payload)} bytes, fewer than a header's "
                f"{HEADER.size}; {DAMAGED}"
            )
        flag, label, _, _ = HEADER.unpack_from(payload)
        if flag == 0:
            return Record(0, (label,), payload[HEADER.size :])
        start = HEADER.size + 4 * flag
        if start > len(payload):
            raise InputError(
                f"{self.where(position)}: the header announces {flag} labels, more than the "
                f"record's {len(payload)} bytes hold; {DAMAGED}"
            )
        return Record(flag, struct.unpack_from(f"<{flag}f", payload, HEADER.size), payload[start:])

    def _read(self, position: int) -> tuple[bytes, int]:
        """The payload, and the byte of the file where the record ends."""
        begin = offset = int(self.offsets[position])

        def damaged(what: str) -> InputError:
            return InputError(f"{self.where(position)}, record at byte {begin}: {what}; {DAMAGED}")

        parts, allowed = [], (0, 1)
        while True:
            part = self._pread(READ_AHEAD, offset)
            if len(part) < PART.size:
                raise damaged(f"cut short by the end of the file at byte {self._size}")
            magic, word = PART.unpack_from(part)
            if magic != MAGIC:
                raise damaged(f"0x{magic:08x} at byte {offset} where the magic 0xced7230a belongs")
            flag, length = word >> 29, word & (2**29 - 1)
            if flag not in allowed:
                raise damaged(f"part {len(parts) + 1} has the flag {flag} out of sequence")
            stop, end = PART.size + length, PART.size + (length + 3) // 4 * 4
            if offset + end > self._size:
                raise damaged(
                    f"a part of {length} bytes at byte {offset} runs past the end of the file at "
                    f"byte {self._size}"
                )
            if end + PART.size > len(part):
                part += self._pread(end + PART.size - len(part), offset + len(part))
            # What follows shows a damaged length, and a damaged flag that ends the record early.
            allowed = (2, 3) if flag in (1, 2) else (0, 1)
            after = part[end : end + PART.size]
            if offset + end == self._size:
                follows = after == b""
            else:
                follows = len(after) == PART.size and after.startswith(MAGIC_BYTES)
                follows = follows and after[-1] >> 5 in allowed
            if len(part) < end or any(part[stop:end]) or not follows:
                raise damaged(
                    f"the length {length} or the flag {flag} of its part {len(parts) + 1} is "
                    f"wrong, for no part of flag {allowed[0]} or {allowed[1]} begins at byte "
                    f"{offset + end}; or that part is damaged"
                )
            parts.append(part[PART.size : stop])
            offset += end
            if flag in (0, 3):
                return MAGIC_BYTES.join(parts), offset

    def _pread(self, count: int, offset: int) -> bytes:
        """`count` bytes from `offset`, fewer at the end of the file alone."""
        data = os.pread(self._file, count, offset)
        while 0 < len(data) < count:
            more = os.pread(self._file, count - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data
