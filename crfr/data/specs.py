"""Specs of sources that are joined by +, a sign that also occurs in paths, URLs and TFDS splits."""

import os
import re

from crfr.errors import InputError
from crfr.urls import SPEC_BEGINS


def split_spec(spec: str) -> list[str]:
    """The specs that "+" joins.  A + may also be part of a path, a URL or a TFDS split.

    >>> split_spec("tfds:lfw:train+test+https://host/a+b.rec+faces")
    ['tfds:lfw:train+test', 'https://host/a+b.rec', 'faces']
    """
    ends = [match.start() for match in re.finditer(r"\+", spec)] + [len(spec)]
    parts, start = [], 0
    while start <= len(spec):
        end = _end(spec, start, [end for end in ends if end >= start])
        parts.append(spec[start:end])
        start = end + 1
    if "" in parts:
        raise InputError(f"{spec!r}: an empty spec; give one before and after each +")
    return parts


def _end(spec: str, start: int, ends: list[int]) -> int:
    """Where the spec that begins at `start` ends, one of `ends`: at a + or with the text."""
    kind = re.match(r"faces(?=[:+]|$)|tfds:|[A-Za-z][\w.-]*://", spec[start:])
    if kind and kind[0] == "faces":
        return ends[0]
    if not kind:
        existing = [end for end in ends if os.path.exists(spec[start:end])]
        if existing:
            return max(existing)
    for end in ends[:-1]:
        # tfds:NAME:SPLIT, where a bare word after the + is another split
        in_split = re.match(r"tfds:[^:]+:", spec[start:end]) is not None
        after = [spec[end + 1 : other] for other in ends if other > end]
        paths = after if not in_split else [path for path in after if "/" in path]
        if re.match(SPEC_BEGINS, after[-1]) or any(map(os.path.exists, paths)):
            return end
    return ends[-1]
