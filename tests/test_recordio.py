"""crfr.data.recordio: what a RecordIO writer wrote is read back, and damage is named."""

import os
import pickle
import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from packs import MAGIC, part, payload, split, write_records

from crfr.data.recordio import RecordFile, read_index
from crfr.errors import InputError

HEAD = payload(b"")  # 24 bytes: what follows begins at a multiple of 4


def test_a_split_record_has_the_bytes_of_the_specification():
    # dmlc-core: the parts' flags are 1, 2, 3; the magics inside the payload are left out.
    data = b"abcd" + MAGIC + MAGIC + b"ef" + MAGIC + b"g"
    expected = (
        "0a23d7ce04000020" + b"abcd".hex() + "0a23d7ce00000040"
        "0a23d7ce07000060" + b"ef".hex() + "0a23d7ce" + b"g".hex() + "00"
    )  # fmt: skip
    assert split(data).hex() == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"four",
        MAGIC,
        MAGIC + MAGIC,
        MAGIC[:3],
        b"12" + MAGIC + b"34",
        b"1234" + MAGIC,
        MAGIC + b"5",
        b"1234" + MAGIC + b"5678" + MAGIC + MAGIC + b"9",
        bytes(16384 - 32),  # exactly what is read ahead, and around it
        bytes(16384 - 33),
        bytes(16384 - 36),
        bytes(16384 - 31),
        b"7" * 100_001 + MAGIC + b"8" * 100_000 + MAGIC,
    ],
    ids=lambda body: f"{len(body)}:{body[:6].hex()}",
)
def test_payloads_come_back(tmp_path, body):
    path = write_records(tmp_path / "a.rec", {3: HEAD + body, 1: b"q" * 24, 2: HEAD + body})
    records = RecordFile(path)
    assert records.keys.tolist() == [1, 2, 3]
    assert [records.read(i) for i in range(3)] == [b"q" * 24, HEAD + body, HEAD + body]


def test_random_payloads_full_of_magics_come_back(tmp_path):
    rng = np.random.default_rng(0)
    payloads = {}
    for key in range(60):
        pieces = [rng.bytes(rng.integers(0, 9)) for _ in range(rng.integers(1, 9))]
        payloads[key] = MAGIC.join(pieces)
    records = RecordFile(write_records(tmp_path / "a.rec", payloads))
    assert [records.read(key) for key in range(60)] == list(payloads.values())


def test_header_labels_and_body(tmp_path):
    payloads = {0: payload(b"body", 7.0), 1: payload(b"other", 7.0, (1.5, -2.0))}
    records = RecordFile(write_records(tmp_path / "a.rec", payloads))
    assert records.record(0) == (0, (7.0,), b"body")
    assert records.record(1) == (2, (1.5, -2.0), b"other")


def test_index_of_windows_and_without_final_newline(tmp_path):
    path = tmp_path / "a.idx"
    path.write_bytes(b"5\t40\r\n0\t80\r\n3\t0")
    keys, offsets = read_index(path, 100)
    assert keys.tolist() == [0, 3, 5]
    assert offsets.tolist() == [80, 0, 40]
    assert keys.dtype == offsets.dtype == np.int64


@pytest.mark.parametrize(
    ("text", "line", "shown"),
    [
        ("0\t0\n1 8\n", 2, "1 8"),
        ("0\t0\n1\t\n", 2, "1"),
        ("0\t0\n\t8\n", 2, "8"),
        ("0\t0\n\n1\t8\n", 2, "''"),
        ("0\t0\n1\n2\t8\n", 2, "1"),
        ("0\t0\n1\t8\t9\n", 2, "9"),
        ("0\t0\n1\t8.0\n", 2, "8.0"),
        ("0\t0\n1\t-8\n", 2, "-8"),
        ("0\t0\n1\t9999999999999999999\n", 2, "9999"),
        ("0\t0\n1\t8\nhello", 3, "hello"),
        ("\xff\t0\n", 1, "\xff"),
    ],
)
def test_malformed_index_lines_are_named(tmp_path, text, line, shown):
    path = tmp_path / "a.idx"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(InputError) as error:
        read_index(path, 100)
    assert f"{path}, line {line}:" in str(error.value)
    assert shown in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lists no records"),
        ("\n\n", "lists no records"),
        ("0\t0\n7\t96\n", "line 2: key 7 at byte 96"),  # a part's head ends at byte 104 of 100
        ("0\t0\n7\t6\n", "line 2: key 7 at byte 6"),
        ("4\t0\n7\t4\n4\t8\n", "key 4 occurs more than once"),
    ],
)
def test_impossible_indices_are_named(tmp_path, text, words):
    path = tmp_path / "a.idx"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_index(path, 100)


def test_an_index_is_read_into_arrays(tmp_path):
    # 50,000 lines, as 5.8 million would: no Python objects, which take 60 bytes a number and more.
    path = tmp_path / "a.idx"
    path.write_text("".join(f"{key}\t{8 * key}\n" for key in range(50_000)))
    tracemalloc.start()
    keys, offsets = read_index(path, 8 * 50_000)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(offsets, 8 * keys)
    assert kept < 50_000 * 18
    assert peak < 50_000 * 120


def test_missing_files_are_named(tmp_path):
    path = write_records(tmp_path / "train.rec", {0: HEAD})
    with pytest.raises(InputError, match=f"trian.rec: no such file; did you mean {path}"):
        RecordFile(tmp_path / "trian.rec")
    with pytest.raises(InputError, match="no folder"):
        RecordFile(tmp_path / "nowhere/train.rec")
    with pytest.raises(InputError, match="is a folder"):
        RecordFile(tmp_path)
    (tmp_path / "train.idx").unlink()
    with pytest.raises(InputError, match=r"needs its index .*train\.idx.*rec2idx"):
        RecordFile(path)


def write(path, records: bytes, index: str):
    path.write_bytes(records)
    path.with_suffix(".idx").write_text(index)
    return path


LAST = part(0, HEAD)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (b"\0" * 32, "0x00000000 at byte 0 where the magic"),
        (part(2, HEAD), "part 1 has the flag 2"),
        (part(3, HEAD), "part 1 has the flag 3"),
        (part(4, HEAD), "part 1 has the flag 4"),
        (part(1, HEAD) + part(0, HEAD), "no part of flag 2 or 3 begins at byte 32"),
        (part(1, HEAD) + part(2, HEAD) + part(1, HEAD), "part 2 is wrong.* byte 64"),
        (part(0, HEAD) + part(3, HEAD), "no part of flag 0 or 1 begins at byte 32"),
        (
            part(1, HEAD),
            "no part of flag 2 or 3 begins at byte 32",
        ),  # LAST follows where part 2 belongs
        (MAGIC + struct.pack("<I", 2**29 - 1) + HEAD, "runs past the end of the file"),
        (MAGIC + struct.pack("<I", 20) + HEAD, "the length 20 or "),
        (MAGIC + struct.pack("<I", 28) + HEAD, "the length 28 or "),
        (MAGIC + struct.pack("<I", 25) + HEAD + b"abcd", "the length 25 or"),
        (part(0, b"short"), "5 bytes, fewer than a header's 24"),
        (part(0, struct.pack("<IfQQ", 2, 0, 0, 0) + b"seven b"), "announces 2 labels"),
        (part(0, struct.pack("<IfQQ", 2**32 - 1, 0, 0, 0)), "announces 4294967295 labels"),
    ],
)
def test_damaged_records_are_named(tmp_path, record, words):
    path = write(tmp_path / "a.rec", record + LAST, f"5\t0\n6\t{len(record)}\n")
    records = RecordFile(path)
    assert records.record(1) == (0, (0.0,), b"")
    with pytest.raises(InputError, match=f"a.rec, key 5.*{words}") as error:
        records.record(0)
    assert "\n" not in str(error.value)
    assert "copy the pack again" in str(error.value)


def test_truncated_packs_and_indices_do_not_open(tmp_path):
    whole = part(0, HEAD) + part(0, HEAD + b"123456789")
    index = "5\t0\n6\t32\n"
    assert RecordFile(write(tmp_path / "a.rec", whole, index)).read(1) == HEAD + b"123456789"
    for size in range(len(whole)):
        path = write(tmp_path / "a.rec", whole[:size], index)
        with pytest.raises(InputError, match=r"a\.idx, line|a\.rec, key 6"):
            RecordFile(path)
    with pytest.raises(InputError, match=r"a\.idx: its last record, key 5, ends at byte 32"):
        RecordFile(write(tmp_path / "a.rec", whole, index[:4]))


def test_a_file_that_shrinks_while_it_is_open_is_an_error(tmp_path):
    path = write(tmp_path / "a.rec", part(0, HEAD) + LAST, "5\t0\n6\t32\n")
    records = RecordFile(path)
    os.truncate(path, 20)
    with pytest.raises(InputError, match="key 5"):
        records.read(0)
    with pytest.raises(InputError, match=r"key 6.*cut short"):
        records.read(1)


def test_any_flipped_bit_outside_payloads_is_found(tmp_path):
    body = b"1234" + MAGIC + b"56789"
    first, second = split(HEAD + body), part(0, HEAD + b"abcdef")
    data, index = first + second, f"1\t0\n2\t{len(first)}\n"
    payloads = [HEAD + body, HEAD + b"abcdef"]
    heads_and_padding = [*range(8), *range(36, 44), *range(49, 60), *range(90, 92)]
    assert len(data) == 92
    missed = []
    for at in heads_and_padding:
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            path = write(tmp_path / "a.rec", flipped, index)
            try:
                read = [RecordFile(path).read(position) for position in (0, 1)]
            except InputError as error:
                assert "key " in str(error)  # noqa: PT017
            else:
                missed.append((at, bit, read))
    # A length that grows into its own padding cannot be told from a payload that ends in zeros.
    assert missed == [
        (40, 1, [payloads[0] + bytes(2), payloads[1]]),
        (56, 0, [payloads[0], payloads[1] + bytes(1)]),
    ]


def test_threads_and_pickled_copies_read_the_same(tmp_path):
    payloads = {key: HEAD + bytes([key]) * (500 * key) for key in range(64)}
    records = RecordFile(write_records(tmp_path / "a.rec", payloads))
    order = np.random.default_rng(0).integers(0, 64, 1000).tolist()
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(records.read, order)) == [payloads[key] for key in order]
    copy = pickle.loads(pickle.dumps(records))
    assert copy.read(63) == payloads[63]
    moved = pickle.dumps(records)
    (tmp_path / "a.rec").rename(tmp_path / "b.rec")
    with pytest.raises(InputError, match="no such file"):
        pickle.loads(moved)


def test_the_file_is_closed_with_the_last_reference(tmp_path):
    records = RecordFile(write_records(tmp_path / "a.rec", {0: HEAD}))
    number = records._file
    os.fstat(number)
    del records
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
