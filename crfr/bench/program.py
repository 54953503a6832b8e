"""What a compiled program does: its kernels in order, the bytes each moves, the part it serves.

Read from the text of the optimized HLO, which every backend gives, also for a GPU that is not there
(benchmarks/gpu_program.py).  A kernel reads each operand and writes its result once: what caches
save and what a kernel reads twice are not in the count.
"""

import collections
import re
from collections.abc import Iterator
from typing import NamedTuple

BYTES = {"pred": 1, "bf16": 2, "f16": 2} | {
    f"{kind}{bits}": bits // 8 for kind in "suf" for bits in (8, 16, 32, 64)
}
FREE = {"parameter", "constant", "bitcast", "tuple", "get-tuple-element", "after-all"}
PARTS = ("views", "forward", "backward", "head", "optimizer", "other")


class Kernel(NamedTuple):
    """One kernel: its name, what it is (`fusion`, a custom call's target, ...), JAX's name of its
    operation, the bytes it reads and writes, the type of its result.
    """

    name: str
    kind: str
    operation: str
    bytes: int
    result: str


def size(shape: str) -> int:
    """Bytes of an HLO type, a tuple's together.

    >>> size("(f32[2,3]{1,0}, bf16[4]{0})")
    32
    """
    total = 0
    for kind, dimensions in re.findall(r"(\w+)\[([\d,]*)\]", shape):
        count = BYTES.get(kind, 0)
        for dimension in filter(None, dimensions.split(",")):
            count *= int(dimension)
        total += count
    return total


def elements(shape: str) -> list[str]:
    """The types in an HLO tuple's.

    >>> elements("((f32[2,3]{1,0}, u8[4]{0}), (f32[2]{0}), u32[])")
    ['(f32[2,3]{1,0}, u8[4]{0})', '(f32[2]{0})', 'u32[]']
    """
    found, depth = [""], 0
    for character in shape[1:-1]:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return [element.strip() for element in found]


def _closing(text: str) -> int:
    """Where the parenthesis closes that the text begins with."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return place
    raise ValueError(f"no closing parenthesis in {text[:80]!r}")


class _Line(NamedTuple):
    name: str
    result: str
    opcode: str
    operands: list[str]
    attributes: str


def _computations(text: str) -> tuple[dict[str, list[_Line]], str]:
    """(lines of each computation, the name of the entry)."""
    found: dict[str, list[_Line]] = {}
    entry = current = ""
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            current = head[2]
            found[current] = []
            entry = current if head[1] else entry
        elif match := re.match(r"\s+(?:ROOT )?%([\w.\-]+) = (.*)$", line):
            name, rest = match.groups()
            end = _closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
            result, rest = rest[:end], rest[end + 1 :]
            opcode, _, _ = rest.partition("(")
            rest = rest[len(opcode) :]
            end = _closing(rest)
            operands = re.findall(r"%([\w.\-]+)", rest[:end])
            found[current].append(_Line(name, result, opcode, operands, rest[end + 1 :]))
    return found, entry


def kernels(text: str) -> list[Kernel]:
    """The kernels of an optimized HLO module's entry, and of what it calls, in its order."""
    computations, entry = _computations(text)

    def walk(name: str) -> Iterator[Kernel]:
        shapes = {line.name: line.result for line in computations[name]}
        for line in computations[name]:
            called = re.search(r"to_apply=%([\w.\-]+)", line.attributes)
            if line.opcode == "call" and called:
                yield from walk(called[1])
            elif line.opcode not in FREE:
                target = re.search(r'custom_call_target="([^"]*)"', line.attributes)
                operation = re.search(r'op_name="([^"]*)"', line.attributes)
                moved = sum(size(shapes[o]) for o in dict.fromkeys(line.operands) if o in shapes)
                yield Kernel(
                    line.name,
                    target[1] if target else line.opcode,
                    operation[1] if operation else "",
                    moved + size(line.result),
                    line.result,
                )

    return list(walk(entry))


def part(operation: str) -> str:
    """The part of a training step that an operation belongs to, by the name JAX gives it.

    A fusion has the name of one of its operations, so that what is fused across parts counts for
    one of them.
    """
    for name in ("optimizer", "head", "views"):
        if re.search(rf"\b{name}\b", operation):
            return name
    if "ResNet" in operation:
        return "backward" if "transpose(" in operation else "forward"
    return "other"


def by_part(found: list[Kernel]) -> dict[str, dict[str, float]]:
    """part -> number of kernels and GB."""
    count, moved = collections.Counter(), collections.Counter()
    for kernel in found:
        count[part(kernel.operation)] += 1
        moved[part(kernel.operation)] += kernel.bytes
    return {p: {"kernels": count[p], "gb": round(moved[p] / 1e9, 4)} for p in PARTS if count[p]}
