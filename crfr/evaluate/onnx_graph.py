"""What onnxruntime does not tell of an ONNX file, read without the onnx package.

An ONNX file is one protobuf message.  On the wire it is fields, each a key (number << 3 | type) and
a value: type 0 a varint, 1 eight bytes, 2 a length and as many bytes, 5 four bytes.
"""

import hashlib
import mmap
from collections.abc import Iterator
from pathlib import Path

from crfr.data.tfexample import varint

# Message -> field number -> the message that lies in it, along the ways that lead to tensors
# (onnx.proto of the ONNX project).
INSIDE = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
GRAPH, PROPERTY, NODE = 7, 14, 1
NODE_INPUT, NODE_OUTPUT, NODE_KIND = 1, 2, 4
ARITHMETIC = {"Add", "Sub", "Mul", "Div"}
PASSING = {"Cast", "Identity", "Transpose"}


def external_files(path: Path) -> list[Path]:
    """The files beside an ONNX file in which its larger tensors lie, in the order of their names.

    `path` is a file that onnxruntime has read: nothing here is checked again.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        view = memoryview(data)
        found = set(_locations(view, "model"))
        view.release()
    return [path.parent / name for name in sorted(found)]


def properties(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file, key -> value."""
    found = {}
    for number, message in _fields(memoryview(path.read_bytes())):
        if number == PROPERTY:
            entry = {part: str(value, "utf-8") for part, value in _fields(message)}
            found[entry.get(1, "")] = entry.get(2, "")
    return found


def graph_digest(path: Path) -> str:
    """The SHA-256 of the graph of an ONNX file, as it lies there, in hexadecimal digits."""
    digest = hashlib.sha256()
    for number, message in _fields(memoryview(path.read_bytes())):
        if number == GRAPH:
            digest.update(message)
    return digest.hexdigest()


def first_operations(path: Path, name: str) -> list[str]:
    """The kinds of the nodes that the input `name` goes through one by one, up to and with the
    first that is no arithmetic of single pixels.
    """
    nodes = []
    for number, graph in _fields(memoryview(path.read_bytes())):
        if number == GRAPH:
            nodes += [_node(message) for part, message in _fields(graph) if part == NODE]
    found: list[str] = []
    while not found or found[-1] in ARITHMETIC or found[-1] in PASSING:
        following = [(kind, outputs) for kind, inputs, outputs in nodes if name in inputs]
        if len(following) != 1:
            break
        kind, outputs = following[0]
        found.append(kind)
        name = outputs[0]
    return found


def _node(message: memoryview) -> tuple[str, list[str], list[str]]:
    """(kind, inputs, outputs)"""
    names = {NODE_INPUT: [], NODE_OUTPUT: [], NODE_KIND: [""]}
    for number, value in _fields(message):
        if number in names:
            names[number].append(str(value, "utf-8"))
    return names[NODE_KIND][-1], names[NODE_INPUT], names[NODE_OUTPUT]


def _locations(message: memoryview, kind: str) -> Iterator[str]:
    if kind == "entry":  # of a map: field 1 is the key, 2 the value
        entry = {number: bytes(value) for number, value in _fields(message)}
        if entry.get(1) == b"location":
            yield str(entry[2], "utf-8")
        return
    inside = INSIDE[kind]
    for number, value in _fields(message):
        if number in inside:
            yield from _locations(value, inside[number])


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(number, value) of each field; of numbers the value is empty."""
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        length = 0
        if key & 7 == 2:
            length, at = varint(message, at)
        elif key & 7 == 0:
            _, at = varint(message, at)
        else:
            at += {1: 8, 5: 4}[key & 7]
        yield key >> 3, message[at : at + length]
        at += length
