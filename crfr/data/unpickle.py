"""Unpickling without trust: builtin containers, strings, numbers and NumPy arrays, nothing else.

A pickle is a program that its reader runs.  Admitting NumPy's own reconstruction functions alone
is no protection: `dtype.__setstate__` takes a forged dtype that makes bytes pass for pointers, and
writing to such an array crashes the process.  So nothing of NumPy's is run here either:
`ArrayUnpickler` puts a few lines of its own in their place.
"""

import io
import pickle
import pickletools
import struct
from collections.abc import Callable

import numpy as np

from crfr.errors import InputError

# A damaged pickle is a wrong program: it fails wherever that program happens to lead the
# unpickler, in parsing (struct, Value, Unicode, EOF), in its stack and memo (Lookup, Attribute), in
# sizes (Memory, Arithmetic, Recursion), in the arguments of a call (Type, Value, Attribute), or in
# escapes that Python only warns of, where warnings are errors.  The pickle module documents its
# list of exceptions as open; these are what flipped and cut files raise, and their kin.
GARBLED = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    SystemError,
    TypeError,
    ValueError,
    Warning,
    struct.error,
)
# Of arrays and scalars.
CODES = ("b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8")


class PickledDtype:
    """What `numpy.dtype` unpickles to."""

    __slots__ = ("code", "order")

    def __init__(self, code, align=False, copy=False):
        self.code, self.order = _text(code, CODES), "|"

    def __setstate__(self, state):
        self.order = _text(state[1], ("|", "<", ">", "="))

    def array(self, data: bytes | bytearray) -> np.ndarray:
        return np.frombuffer(data, self.order + self.code)


class PickledArray:
    """What `numpy.ndarray` unpickles to; `value` is the array."""

    __slots__ = ("value",)

    def __init__(self, value: np.ndarray):
        self.value = value

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        self.value = dtype.array(data).reshape(shape, order="F" if fortran else "C")


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles builtin containers, strings, numbers and arrays (as PickledArray) of CODES.

    The names it admits are all that NumPy 1 and 2 under Python 2 and 3 write for such data, in
    protocols 0 to 5.  InputError names any other.  Python 2's strings become bytes.
    """

    def __init__(self, path: str, data: bytes):
        super().__init__(io.BytesIO(data), encoding="bytes")
        self.path = path
        self.unspent = len(data)

    def find_class(self, module: str, name: str) -> Callable | str:
        match module.replace("numpy._core.", "numpy.core."), name:
            case "numpy.core.multiarray", "_reconstruct":
                return self._reconstruct
            case "numpy.core.multiarray", "scalar":
                return self._scalar
            case "numpy.core.numeric", "_frombuffer":
                return self._frombuffer
            case "numpy", "dtype":
                return PickledDtype
            case "numpy", "ndarray":
                return "ndarray"  # only ever an argument of _reconstruct
            case "_codecs", "encode":
                return self._encode
            case "__builtin__", "bytes":
                return self._no_bytes
        asked = f"{module}.{name}"[:80]
        raise InputError(
            f"{self.path}: refused before it ran: this pickle asks for {asked!r}, which plain data "
            "and arrays do not need; it may be hostile: get the file from a source you trust"
        )

    def _reconstruct(self, kind, shape, code) -> PickledArray:
        return PickledArray(np.empty(0, np.uint8))  # filled by __setstate__

    def _scalar(self, dtype: PickledDtype, data: bytes) -> bool | int | float:
        return dtype.array(data)[0].item()

    def _frombuffer(self, data, dtype: PickledDtype, shape, order, axis_order=None) -> PickledArray:
        fortran = _text(order, ("C", "F")) == "F"
        return PickledArray(dtype.array(data).reshape(shape, order="F" if fortran else "C"))

    def _no_bytes(self) -> bytes:
        return b""  # as protocols 0 to 2 write it

    def _encode(self, text: str, codec: object) -> bytes:
        """Protocols 0 to 2 write bytes as text.  Other codecs import modules and decompress."""
        encoded = text.encode(_text(codec, ("latin1",)))
        # One string of the file may be encoded over and over until memory is full.
        self.unspent -= len(encoded)
        if self.unspent < 0:
            raise MemoryError("it expands to more than its own size")
        return encoded


def unpickle(path: str, data: bytes) -> object:
    """The object that `data`, the content of the file `path`, describes.

    InputError names the file if it is garbled, or asks for anything but plain data and arrays.
    """
    try:
        _check_memo(data)
        return ArrayUnpickler(path, data).load()
    except InputError:
        raise
    except GARBLED as error:
        what = " ".join(f"{type(error).__name__}: {error}"[:200].split())
        raise InputError(
            f"{path}: not a sound pickle ({what}); copy the file again from its source"
        ) from error


def _check_memo(data: bytes) -> None:
    """The memo is an array as long as the largest index written: six bytes can ask for 64 GB.
    Picklers number consecutively, so no index exceeds the number of opcodes before it."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument or 0) > count:
            raise pickle.UnpicklingError(f"memo index {argument} after {count} opcodes")


def _text(value: object, known: tuple[str, ...]) -> str:
    """`value` (bytes under Python 2) as one of `known`."""
    text = value.decode("ascii") if isinstance(value, bytes) else value
    if not isinstance(text, str):  # its repr may be a bomb
        raise TypeError(f"a {type(text).__name__} where one of {known} belongs")
    if text not in known:
        raise ValueError(f"{text[:20]!r} where one of {known} belongs")
    return text
