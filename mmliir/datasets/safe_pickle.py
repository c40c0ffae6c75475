"""Read the pickles of data sets without running anything in them.

Python's `pickle` calls whatever a file names. Here the file's opcodes are interpreted by a machine that knows plain
containers, numbers, strings and NumPy arrays, and has nothing else to call: the few names that NumPy itself writes
stand for functions of this module, any other name ends the reading. The formats are those of protocols 0 to 5; the
arguments of opcodes are parsed by the standard library's `pickletools`.

The file is mapped, not loaded: the data of arrays stay on the disk until they are looked at, so a file may be larger
than the memory.
"""

import mmap
import os
import pickletools
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

#: Shorter byte strings are read, longer ones stay views of the file.
_MAPPED_FROM = 1 << 12
_LONGEST_SHAPE = 32
# Numbers, booleans and fixed-width strings; no objects, records, dates.
_DTYPE = re.compile(r'[<>|=]?(?:b1|\?|[iu][1248]|f[248]|c(?:8|16)|[SU][1-9]\d{0,9})')
_KEYS = (str, bytes, int, float, type(None))
_LEAVES = (str, bytes, memoryview, int, float, type(None), np.ndarray, np.generic, np.dtype)


def read_pickle(path: str | os.PathLike) -> Any:
    """Read a pickle of plain data and NumPy arrays; nothing in the file is executed.

    Args:
        path: File written by `pickle.dump`, protocol 0 to 5, with NumPy 1 or 2.

    Returns:
        What was stored: lists, tuples, dicts, strings, numbers, None, NumPy scalars, dtypes and arrays. Arrays are
        read-only, their data are views of the file; so are byte strings of 4 KiB or more that are no part of an array
        (`memoryview`; `bytes(...)` copies one).

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file asks for a class or function that is not one of NumPy's arrays (the text names it), holds
            an array of objects, is cut off or damaged.
    """
    path = Path(path)
    if not path.is_file():
        came = 'is a folder' if path.exists() else 'does not exist'
        raise FileNotFoundError(f'pickle file expected at {path}, which {came}.')
    if not path.stat().st_size:
        raise ValueError(f'{path} is empty (0 bytes): expected a pickle. Download it again.')
    with open(path, 'rb') as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return _Machine(mapped).run()
    except _RefusedError as error:
        raise ValueError(
            f'{path} {error}; only plain containers, numbers, strings and NumPy arrays are read, and nothing was '
            'executed. Download the file from its official source again.'
        ) from None
    except (
        ValueError, TypeError, IndexError, KeyError, OverflowError, MemoryError, RecursionError, struct.error
    ) as error:  # fmt: skip
        raise ValueError(
            f'{path} ({len(mapped)} bytes) is cut off, damaged or no pickle: at byte {mapped.tell()}, '
            f'"{type(error).__name__}: {error}". Download it again.'
        ) from error


def _shown(value: Any) -> str:
    """A value from the file as an error shows it: containers, which may be nested without end, by their type."""
    return repr(value)[:100] if isinstance(value, str | bytes | int | float | bool | None) else type(value).__name__


class _RefusedError(Exception):
    """The file asks for something that data do not need; the text continues '<file> ...'."""


class _Global:
    """A name that NumPy's pickles hold; it stands for the name and nothing more."""

    __slots__ = ('name',)

    def __init__(self, name: str) -> None:
        self.name = name


class _Unbuilt:
    """An array or dtype between its making and the BUILD that says what is in it.

    Attributes:
        build: State -> the value.
        memo_keys: Where the memo remembers it.
    """

    __slots__ = ('build', 'memo_keys')

    def __init__(self, build: Callable[[Any], Any]) -> None:
        self.build = build
        self.memo_keys: list[int] = []


class _Machine:
    """The stack machine of the pickle format. Each opcode is a method `_<NAME>(argument)`; the rest is refused."""

    def __init__(self, mapped: mmap.mmap) -> None:
        self.mapped = mapped
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        view = memoryview(self.mapped)
        while True:
            code = self.mapped.read(1)
            if not code:
                raise ValueError('the file ends before its STOP')
            opcode = pickletools.code2op.get(code.decode('latin1'))
            if opcode is None:
                raise ValueError(f'{code!r} is no opcode')
            if opcode.name == 'STOP':
                break
            if opcode.name in _LENGTH_OF:
                argument = self._read_bytes(view, _LENGTH_OF[opcode.name])
            else:
                argument = opcode.arg.reader(self.mapped) if opcode.arg is not None else None
            method = getattr(self, f'_{opcode.name}', None)
            if opcode.name in _PUSHED:
                self.stack.append(argument)
            elif opcode.name in _CONSTANTS:
                self.stack.append(_CONSTANTS[opcode.name])
            elif method is not None:
                method(argument)
            elif opcode.name not in _IGNORED:
                raise _RefusedError(f'asks for {self._what(opcode.name, argument)}')
        (result,) = self._take(1)
        _check_plain(result)
        return result

    # -- stack ----------------------------------------------------------------------------------------------
    def _read_bytes(self, view: memoryview, length_format: str) -> bytes | memoryview:
        size = struct.calcsize(length_format)
        (length,) = struct.unpack(length_format, self.mapped.read(size))
        start = self.mapped.tell()
        if length > len(view) - start:
            raise ValueError(f'{length} bytes announced, {len(view) - start} left')
        self.mapped.seek(start + length)
        piece = view[start : start + length]
        return piece if length >= _MAPPED_FROM else bytes(piece)

    def _take(self, count: int) -> list[Any]:
        """Pop values, in the order in which they were pushed, none from below the last mark."""
        if len(self.stack) - count < (self.marks[-1] if self.marks else 0):
            raise ValueError('a value is missing on the stack')
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def _take_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _top(self, kind: type) -> Any:
        (value,) = self._take(1)
        self.stack.append(value)
        if not isinstance(value, kind):
            raise ValueError(f'a {kind.__name__} is expected on the stack, not {type(value).__name__}')
        return value

    def _what(self, opcode: str, argument: Any) -> str:
        """What a refused opcode asks for, in words."""
        if opcode == 'INST':
            return f'an object of {argument.replace(" ", ".")!r}'
        below = [value.name for value in self.stack[-3:] if isinstance(value, _Global)]
        return f'{opcode} of {below[-1]!r}' if below else f'{opcode} ({argument!r})'

    # -- opcodes --------------------------------------------------------------------------------------------
    def _MARK(self, _) -> None:
        self.marks.append(len(self.stack))

    def _POP(self, _) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self._take(1)

    def _POP_MARK(self, _) -> None:
        self._take_to_mark()

    def _DUP(self, _) -> None:
        self.stack.append(self._top(object))

    def _PUT(self, key: int) -> None:
        value = self._top(object)
        if isinstance(value, _Unbuilt):
            value.memo_keys.append(key)
        self.memo[key] = value

    _BINPUT = _LONG_BINPUT = _PUT

    def _MEMOIZE(self, _) -> None:
        self._PUT(len(self.memo))

    def _GET(self, key: int) -> None:
        self.stack.append(self.memo[key])

    _BINGET = _LONG_BINGET = _GET

    def _EMPTY_LIST(self, _) -> None:
        self.stack.append([])

    def _EMPTY_DICT(self, _) -> None:
        self.stack.append({})

    def _LIST(self, _) -> None:
        self.stack.append(self._take_to_mark())

    def _TUPLE(self, _) -> None:
        self.stack.append(tuple(self._take_to_mark()))

    def _TUPLE1(self, _) -> None:
        self.stack.append(tuple(self._take(1)))

    def _TUPLE2(self, _) -> None:
        self.stack.append(tuple(self._take(2)))

    def _TUPLE3(self, _) -> None:
        self.stack.append(tuple(self._take(3)))

    def _APPEND(self, _) -> None:
        values = self._take(1)
        self._top(list).extend(values)

    def _APPENDS(self, _) -> None:
        values = self._take_to_mark()
        self._top(list).extend(values)

    def _DICT(self, _) -> None:
        values = self._take_to_mark()
        self.stack.append({})
        self._set_items(values)

    def _SETITEM(self, _) -> None:
        self._set_items(self._take(2))

    def _SETITEMS(self, _) -> None:
        self._set_items(self._take_to_mark())

    def _set_items(self, values: list[Any]) -> None:
        target = self._top(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            # Tuples are left out: hashing a deep one overflows the interpreter's own stack.
            if not isinstance(key, _KEYS):
                raise ValueError(f'a key of a dict is a {type(key).__name__}')
            target[key] = value

    def _GLOBAL(self, names: str) -> None:
        self._push_global(*names.split(' ', 1))

    def _STACK_GLOBAL(self, _) -> None:
        module, name = self._take(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError('the name of a class is no string')
        self._push_global(module, name)

    def _push_global(self, module: str, name: str) -> None:
        full = f'{module}.{name}'
        known = full.replace('numpy.core.', 'numpy._core.', 1).replace('__builtin__.', 'builtins.', 1)
        if known != 'numpy.ndarray' and known not in _MAKERS:
            raise _RefusedError(f'asks for {full!r}')
        self.stack.append(_Global(known))

    def _REDUCE(self, _) -> None:
        function, arguments = self._take(2)
        if not isinstance(arguments, tuple):
            raise ValueError('arguments that are no tuple')
        if not isinstance(function, _Global) or function.name not in _MAKERS:
            name = function.name if isinstance(function, _Global) else type(function).__name__
            raise _RefusedError(f'asks for a call of {name!r}')
        self.stack.append(_MAKERS[function.name](*arguments))

    def _BUILD(self, _) -> None:
        target, state = self._take(2)
        if not isinstance(target, _Unbuilt):
            name = target.name if isinstance(target, _Global) else type(target).__name__
            raise _RefusedError(f'asks to change the state of {name!r}')
        value = target.build(state)
        for key in target.memo_keys:
            self.memo[key] = value
        self.stack.append(value)


_IGNORED = {'PROTO', 'FRAME'}
_PUSHED = {
    *('INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT'),
    *('STRING', 'BINSTRING', 'SHORT_BINSTRING', 'UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8'),
    *('SHORT_BINBYTES', 'BINBYTES', 'BINBYTES8', 'BYTEARRAY8'),
}
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': ()}
#: Byte strings that may be long -> how their length is stored.
_LENGTH_OF = {'BINBYTES': '<I', 'BINBYTES8': '<Q', 'BYTEARRAY8': '<Q'}


def _check_plain(result: Any) -> None:
    """Nothing half-made may leave; a loop, and not a recursion, for a nest may be deep or hold itself."""
    seen, waiting = set(), [result]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (list, tuple, dict)):
            if id(value) not in seen:
                seen.add(id(value))
                waiting.extend(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, _Global):
            raise _RefusedError(f'holds {value.name!r} itself as data')
        elif not isinstance(value, _LEAVES):
            raise ValueError('an array or dtype that is never filled')


# -- what NumPy's own pickles call ----------------------------------------------------------------------------


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Unbuilt:
    if not isinstance(kind, _Global) or kind.name != 'numpy.ndarray':
        name = kind.name if isinstance(kind, _Global) else type(kind).__name__
        raise _RefusedError(f'asks for an array of the class {name!r}')
    return _Unbuilt(_build_array)


def _build_array(state: Any) -> np.ndarray:
    """`state`: (version, shape, dtype, is Fortran, data), as `numpy.ndarray.__setstate__` takes it."""
    _, shape, dtype, is_fortran, data = state
    return _make_array(data, dtype, shape, 'F' if is_fortran else 'C')


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None) -> np.ndarray:
    if order == 'K':
        return _make_array(data, dtype, shape, 'C').transpose(axis_order)
    return _make_array(data, dtype, shape, order)


def _make_array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if isinstance(data, str):  # as Python 2 wrote it
        data = data.encode('latin1')
    if not isinstance(data, (bytes, memoryview)) or not isinstance(dtype, np.dtype) or order not in ('C', 'F'):
        raise ValueError('an array of something else than bytes, a dtype and an order')
    if not isinstance(shape, tuple) or len(shape) > _LONGEST_SHAPE:
        raise ValueError('the shape of an array is no short tuple')
    count = 1
    for length in shape:
        if type(length) is not int or length < 0:
            raise ValueError('an array with a length that is no whole number')
        count *= length
    if count * dtype.itemsize != len(data):
        raise ValueError(f'an array of {count} times {dtype.itemsize} bytes has {len(data)} bytes of data')
    if not count:
        return np.empty(shape, dtype, order)
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _dtype(code: Any, align: Any = False, copy: Any = True) -> _Unbuilt:
    if not isinstance(code, str) or not _DTYPE.fullmatch(code):
        raise _RefusedError(f'asks for the NumPy dtype {_shown(code)}')
    dtype = np.dtype(code)

    def build(state: Any) -> np.dtype:
        """`state`: (version, byte order, subarray, names, fields, ...)."""
        _, byte_order, *records = state
        if byte_order not in ('<', '>', '|', '=') or any(part is not None for part in records[:3]):
            raise _RefusedError('asks for a NumPy dtype of records')
        return dtype.newbyteorder(byte_order)

    return _Unbuilt(build)


def _scalar(dtype: Any, data: Any) -> np.generic:
    return _make_array(data, dtype, (), 'C')[()]


def _encode(text: Any, encoding: Any = 'utf-8') -> bytes:
    """Bytes as protocols 0 to 2 store them: a text of the characters 0 to 255."""
    if not isinstance(text, str) or encoding != 'latin1':
        raise _RefusedError(f'asks for the encoding {_shown(encoding)}')
    return text.encode('latin1')


def _bytes() -> bytes:
    """Protocols 0 to 2 store b'' so."""
    return b''


_MAKERS: dict[str, Callable[..., Any]] = {
    'numpy._core.multiarray._reconstruct': _reconstruct,
    'numpy._core.multiarray.scalar': _scalar,
    'numpy._core.numeric._frombuffer': _frombuffer,
    'numpy.dtype': _dtype,
    '_codecs.encode': _encode,
    'builtins.bytes': _bytes,
}
