"""A pickle's contents without its code: tensors and plain values, and stand-ins for all the rest.

A name in a pickle means a function or class that the reader calls. Here a name is one of three. On
``_MADE``: what tensors and plain containers are made with, called by this module alone. On the list
of ``is_hostile``: refused, since no training writes it. Anything else, such as the classes of a
trainer, an optimizer or a whole network, becomes a ``StandIn``, which is never called and holds
what the file would have built the object of. Nothing but ``_MADE`` is ever looked up or called, so
what the list of refused names overlooks does not run either.
"""

from __future__ import annotations

import argparse
import math
import pickle
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

#: Modules whose functions reach the system, other programs or code; nothing in them is a value.
_HOSTILE_MODULES = (
    "os", "posix", "nt", "sys", "subprocess", "_posixsubprocess", "pty", "shutil", "socket",
    "ctypes", "_ctypes", "importlib", "runpy", "codeop", "pdb", "bdb", "marshal", "webbrowser",
    "timeit", "copyreg extension", "torch.hub",
)  # fmt: skip
_HOSTILE_NAMES = frozenset(
    f"{module}.{name}"
    for module, names in {
        "builtins": "eval exec compile open input breakpoint __import__ globals setattr delattr",
        "io": "open open_code FileIO",
        "_io": "open open_code FileIO",
        "pickle": "load loads",
        "_pickle": "load loads",
        "code": "interact InteractiveInterpreter InteractiveConsole",
        "types": "CodeType FunctionType",
        "torch": "load",
        "torch.serialization": "load",
        "torch.jit": "load",
        "numpy": "load fromfile",
    }.items()
    for name in names.split()
)


#: NumPy's codes of whole and real numbers and of truth values, as its dtypes are stored.
_NUMBER = re.compile(r"[iu][1248]|f[248]|b1")


class StandIn:
    """In place of what a file names and nobody makes.

    Attributes:
        name: of the function or class, with its module.
        args: what it would have been called with.
        state: what its attributes would have been set from; None when the file sets none.
        items: entries, of what would have been a dict.
        members: of what would have been a list or a set.
    """

    def __init__(self, name: str, args: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.args = args
        self.state: Any = None
        self.items: dict[Any, Any] = {}
        self.members: list[Any] = []

    @property
    def attributes(self) -> Mapping[Any, Any]:
        """What ``state`` says by name; empty when it says nothing so."""
        # A pair is the attributes and the slots (pickle's object protocol).
        state = self.state[0] if type(self.state) is tuple and self.state else self.state
        return state if isinstance(state, Mapping) else {}


def resolved(module: str, name: str) -> str:
    """A name with its module, as Python 3 calls both (protocols below 3 have those of Python 2)."""
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"


def is_hostile(name: str) -> bool:
    """Whether the file is refused for that name, module and all."""
    return name in _HOSTILE_NAMES or any(
        name == module or name.startswith((f"{module}.", f"{module} "))
        for module in _HOSTILE_MODULES
    )


class HostileNameError(Exception):
    """A name of ``is_hostile``, met while reading."""


def _tensor(
    storage: Any,  # noqa: ANN401 - a typed storage, which torch does not export
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    _requires_grad: object = None,
    _hooks: object = None,
    metadata: object = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """A tensor on ``storage``, which is never enlarged for it."""
    last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0:
        raise pickle.UnpicklingError("a tensor of negative sizes")
    dtype = dtype or storage.dtype
    if math.prod(size) and (last + 1) * dtype.itemsize > storage._untyped_storage.nbytes():
        raise pickle.UnpicklingError(f"a tensor of shape {list(size)} beyond its storage")
    tensor = torch.empty((0,), dtype=dtype).set_(storage._untyped_storage, offset, size, stride)
    if isinstance(metadata, dict):
        torch._utils.set_tensor_metadata(tensor, metadata)  # type: ignore[no-untyped-call]
    return tensor


def _tensor_of_dtype(*args: Any) -> Tensor:  # noqa: ANN401
    """As ``_tensor``, for types that have no storage of their own."""
    return _tensor(args[0], args[1], args[2], args[3], dtype=args[6])


def _data(data: Any, *_rest: object) -> Any:  # noqa: ANN401
    """A parameter's tensor; attributes that a file sets on it are left out."""
    return data


def _subclass(make: Any, _kind: object, args: Any, _state: object) -> Any:  # noqa: ANN401
    """A tensor with attributes or of another class, as the tensor it is."""
    return _call(make, args)


def _members(items: Any = (), *_rest: object) -> list[Any]:  # noqa: ANN401 - lists and sets alike
    return list(items) if type(items) in (list, tuple) else []


def _entries(*args: Any) -> dict[Any, Any]:  # noqa: ANN401
    """A plain dict for Counter, which is given one, and for defaultdict, given how to make more."""
    return next((dict(item) for item in args if type(item) in (dict, OrderedDict)), {})


def _ordered(items: Any = (), *_rest: object) -> OrderedDict[Any, Any]:  # noqa: ANN401
    made: OrderedDict[Any, Any] = OrderedDict()
    for item in _members(items):
        if type(item) in (list, tuple) and len(item) == 2:
            _put(made, *item)
    return made


def _bytes(text: Any = b"", encoding: object = "latin1", *_rest: object) -> bytes:  # noqa: ANN401
    """How protocol 2 writes bytes."""
    if isinstance(text, str) and encoding in ("latin1", "latin-1"):
        return text.encode("latin1")
    return bytes(text) if isinstance(text, bytes | bytearray) else b""


#: Name -> what is called for it; all a file can have called.
_MADE: dict[str, Callable[..., Any]] = {
    "argparse.Namespace": lambda *_: argparse.Namespace(),
    "types.SimpleNamespace": lambda *_: argparse.Namespace(),
    "collections.OrderedDict": _ordered,
    "collections.Counter": _entries,
    "collections.defaultdict": _entries,
    "collections.deque": _members,
    "builtins.set": _members,
    "builtins.frozenset": _members,
    "builtins.list": _members,
    "builtins.dict": _entries,
    "builtins.bytearray": _bytes,
    "builtins.bytes": _bytes,
    "_codecs.encode": _bytes,
    "torch.Size": _members,
    "torch.device": _data,
    "torch.Tensor": _data,
    "torch.nn.parameter.Parameter": _data,
    "torch.nn.parameter.Buffer": _data,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _data,
    "torch._utils._rebuild_parameter_with_state": _data,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _data,
    "torch._tensor._rebuild_from_type_v2": _subclass,
}


def _scalar(kind: Any, data: Any = None) -> Any:  # noqa: ANN401
    """A NumPy number as Python's own, which arguments may be; else nothing."""
    code = kind.args[0] if type(kind) is StandIn and kind.args else None
    is_number = isinstance(code, str) and _NUMBER.fullmatch(code) and isinstance(data, bytes)
    if not is_number or len(data) != np.dtype(code).itemsize:
        return None
    return np.frombuffer(data, np.dtype(code).newbyteorder("<"))[0].item()


_MADE |= dict.fromkeys(("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"), _scalar)


def _cost(args: object, most: int) -> int:
    """What a call may copy of ``args``, in bytes of the file at least; counted up to ``most``."""
    total, waiting = 0, [args]
    while waiting and total <= most:
        item = waiting.pop()
        if type(item) in (str, bytes, list, tuple, dict, OrderedDict):
            total += len(item)  # type: ignore[arg-type]
        if type(item) is tuple:
            waiting.extend(item)
    return total


def _call(make: Any, args: Any) -> Any:  # noqa: ANN401
    """What a file would have made by calling ``make``."""
    if type(make) is _Made:
        return make.function(*args)
    if type(make) is not StandIn:
        raise pickle.UnpicklingError(f"it calls a {type(make).__name__}")
    # Of the name alone: a file may call one object again and again.
    return StandIn(make.name, args if type(args) is tuple else ())


_KEYS = (str, int, float, bool, bytes, type(None), StandIn)


class _Made:
    """A function of ``_MADE`` on the reader's stack, where a file could change one that is bare."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function


def _put(target: Any, key: Any, value: Any) -> None:  # noqa: ANN401
    """One entry; keys that have no hash, or one as deep as the file likes, mean nothing here."""
    if all(type(part) in _KEYS for part in (key if type(key) is tuple else (key,))):
        target[key] = value


class Unpickler(pickle._Unpickler):
    """Python's reader with every instruction that calls, sets or looks up something replaced.

    ``torch.load`` derives from it and gives it ``persistent_load``, which reads storages.
    """

    file: PickleModule
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        """What stands for a name; nothing is imported."""
        full = resolved(module, name)
        if is_hostile(full):
            raise HostileNameError(full)
        if full in _MADE:
            return _Made(_MADE[full])
        if full == "torch.storage.UntypedStorage":
            return torch.UntypedStorage  # torch.load compares with it, and makes the typed ones
        dtype = vars(torch).get(name) if module == "torch" else None
        if isinstance(dtype, torch.dtype):
            return dtype
        self.file.foreign[full] = None
        return StandIn(full)

    def _push_call(self, make: Any, args: Any) -> None:  # noqa: ANN401
        if type(make) is _Made:
            # A file may hand one long list or text to any number of calls, of some bytes each.
            self.file.copied += _cost(args, self.file.most_copied)
            if self.file.copied > self.file.most_copied:
                raise pickle.UnpicklingError("its objects are larger than the file")
        self.append(_call(make, args))

    def load_reduce(self) -> None:
        args, make = self.stack.pop(), self.stack.pop()
        self._push_call(make, args)

    load_newobj = load_reduce

    def load_newobj_ex(self) -> None:
        self.stack.pop()
        self.load_reduce()

    def _instantiate(self, make: Any, args: Any) -> None:  # noqa: ANN401 - INST and OBJ
        self._push_call(make, tuple(args))

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is StandIn:
            target.state = state
        elif type(target) is argparse.Namespace and type(state) is dict:
            vars(target).update((key, item) for key, item in state.items() if type(key) is str)

    def load_binpersid(self) -> None:
        place = self.stack.pop()
        if type(place) is not tuple or len(place) < 2:
            raise pickle.UnpicklingError("it refers to something that is no storage")
        if place[0] in ("module", b"module"):
            # Files before 1.6 keep a network's source beside its class.
            self.append(place[1])
            return
        # ("storage", kind, key, device, numbers), and one thing more before 1.6.
        if len(place) < 5 or type(place[2]) not in (str, int) or type(place[4]) is not int:
            raise pickle.UnpicklingError("it refers to something that is no storage")
        if place[2] not in self.file.storages:
            self.file.storages.add(place[2])
            self.file.left -= abs(place[4])
        if self.file.left < 0:
            raise pickle.UnpicklingError("its tensors claim more numbers than the file has bytes")
        self.append(self.persistent_load(place))

    def load_persid(self) -> None:
        raise pickle.UnpicklingError("it refers to something that is no storage")

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is StandIn:
            target.members.extend(items)
        elif type(target) is list:
            target.extend(items)
        else:
            raise pickle.UnpicklingError(f"it adds to a {type(target).__name__}")

    def load_append(self) -> None:
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    load_additems = load_appends

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is StandIn:
            target = target.items
        elif type(target) not in (dict, OrderedDict):
            raise pickle.UnpicklingError(f"it sets entries of a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            _put(target, key, value)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def load_setitems(self) -> None:
        self._set(self.pop_mark())

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set(items)

    def load_empty_set(self) -> None:
        self.append([])

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self.append(items)


#: By instruction; those above instead of Python's.
Unpickler.dispatch = {
    code: vars(Unpickler).get(step.__name__, step)
    for code, step in pickle._Unpickler.dispatch.items()
}


class PickleModule:
    """What ``torch.load`` takes for the module ``pickle``, for one file.

    Attributes:
        foreign: names that stand-ins were made for, in the order of the file.
        storages: keys of those referred to.
        left: numbers that further storages may hold; at first the file's size in bytes.
        copied, most_copied: what calls have copied of their arguments, and may have. Every entry
            and letter is a byte of the file at least, and is handed to one call, or to two.
    """

    __name__ = __name__

    def __init__(self, size: int) -> None:
        self.foreign: dict[str, None] = {}
        self.storages: set[str | int] = set()
        self.left = size
        self.copied, self.most_copied = 0, 2 * size + (1 << 20)
        self.Unpickler = type("Unpickler", (Unpickler,), {"file": self})

    def load(self, stream: IO[bytes], **options: Any) -> Any:  # noqa: ANN401 - as pickle's
        """One pickle of ``stream``."""
        return self.Unpickler(stream, **options).load()
