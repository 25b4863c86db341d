"""The kernels of the plugin library called directly, without TensorRT: a ctypes binding.

Everything is passed as integers: device pointers (``tensor.data_ptr()``) and a stream handle. The
structs follow from the ops and have the layout of ``plugins/include/vim_plugins/params.h``;
loading compares their sizes with the library's own. Launching neither allocates nor waits, so it
can be captured in a CUDA graph.
"""

from __future__ import annotations

import ctypes
import enum
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from vim_deploy.errors import VimDeployError
from vim_deploy.ops import OPS, SELECTIVE_SCAN, Op
from vim_deploy.ops.op import Kind
from vim_deploy.plugin.describe import open_library

#: Largest number of tactics the library lists for one shape (``vim_plugins::kMaxTactics``).
_MAX_TACTICS = 16


class DataType(enum.IntEnum):
    """Element type T of the activations (``vim_plugins::DataType``)."""

    FP32 = 0
    FP16 = 1
    BF16 = 2


#: Tactic 0 leaves the choice to the library's own rule.
DEFAULT_TACTIC = 0


class Params(ctypes.Structure):
    """What the kernels of one op read; each op's struct is a subclass."""

    op: ClassVar[Op]


def _struct(op: Op) -> type[Params]:
    """The struct of an op's kernels.

    Tensors come first under the contract's names, inputs before outputs; numbers, sizes, columns,
    counts, flags and the element type follow.
    """

    def of_kind(kind: Kind) -> list[str]:
        return [name for name, given in op.attributes.items() if given is kind]

    kinds = (Kind.COLUMN, Kind.COUNT, Kind.FLAG)
    integers = [*op.kernel_sizes, *(name for kind in kinds for name in of_kind(kind)), "type"]
    fields: list[tuple[str, Any]] = [
        *((name, ctypes.c_void_p) for name in (*op.inputs, *op.outputs)),
        *((name, ctypes.c_float) for name in of_kind(Kind.NUMBER)),
        *((name, ctypes.c_int32) for name in integers),
    ]
    name = f"{op.name.removeprefix('Vim')}Params"
    return type(name, (Params,), {"op": op, "_fields_": fields})


#: The struct of every op, by the op's name.
PARAMS = {op.name: _struct(op) for op in OPS.values()}


class DeviceTensor(Protocol):
    """What is needed of a tensor on the GPU; ``torch.Tensor`` is one."""

    @property
    def shape(self) -> Any: ...  # noqa: ANN401 - torch.Size or a tuple

    @property
    def dtype(self) -> Any: ...  # noqa: ANN401 - read by its name

    def data_ptr(self) -> int: ...

    def is_contiguous(self) -> bool: ...


@dataclass(frozen=True)
class _Functions:
    validate: Any
    tactics: Any
    workspace_bytes: Any
    launch: Any


class ScanLibrary:
    """The kernels of one library file.

    Args:
        path: ``libvim_plugins.so`` or ``libvim_kernels.so``.

    Raises:
        VimDeployError: VIM-401 (no file), VIM-417 (not our library), VIM-903 (another contract).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = open_library(path)
        self._functions = {kind: self._bind(kind) for kind in PARAMS.values() if kind.op.plugin}

    def _bind(self, kind: type[Params]) -> _Functions:
        prefix = re.sub("(?<=.)(?=[A-Z])", "_", kind.op.name).lower()
        size = getattr(self._handle, f"{prefix}_params_size")()
        if size != ctypes.sizeof(kind):
            raise VimDeployError(
                "VIM-903",
                f"{self.path} does not fit this version of vim-deploy",
                why=f"{kind.__name__} has {size} bytes there and {ctypes.sizeof(kind)} here",
                fix="build it again: vim-deploy plugin build",
            )
        pointer = ctypes.POINTER(kind)
        functions = _Functions(
            *(
                getattr(self._handle, f"{prefix}_{name}")
                for name in ("validate", "tactics", "workspace_bytes", "launch")
            )
        )
        functions.validate.argtypes = [pointer]
        functions.validate.restype = ctypes.c_char_p
        functions.tactics.argtypes = [
            pointer,
            ctypes.c_int32,
            ctypes.POINTER(ctypes.c_int32),
            ctypes.c_int32,
        ]
        functions.tactics.restype = ctypes.c_int32
        functions.workspace_bytes.argtypes = [pointer, ctypes.c_int32]
        functions.workspace_bytes.restype = ctypes.c_int64
        functions.launch.argtypes = [pointer, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p]
        functions.launch.restype = ctypes.c_int32
        return functions

    def fault(self, params: Params) -> str | None:
        """What the library refuses about these parameters; None when it would launch them."""
        text: bytes | None = self._functions[type(params)].validate(ctypes.byref(params))
        return None if text is None else text.decode()

    def tactics(self, params: Params, multiprocessors: int) -> tuple[int, ...]:
        """Ids of the tactics for this shape, best guess first."""
        room = (ctypes.c_int32 * _MAX_TACTICS)()
        count = self._functions[type(params)].tactics(
            ctypes.byref(params), multiprocessors, room, _MAX_TACTICS
        )
        return tuple(room[:count])

    def workspace_bytes(self, params: Params, tactic: int = DEFAULT_TACTIC) -> int:
        """Bytes of device workspace that ``launch`` wants with this tactic."""
        return int(self._functions[type(params)].workspace_bytes(ctypes.byref(params), tactic))

    def launch(
        self, params: Params, *, tactic: int = DEFAULT_TACTIC, workspace: int = 0, stream: int = 0
    ) -> None:
        """Enqueue the op on a CUDA stream; returns before it has run.

        Raises:
            VimDeployError: VIM-415 when the parameters are refused, VIM-904 when CUDA refuses the
                launch, with its error number (209: no kernel for this GPU in the library).
        """
        fault = self.fault(params)
        if fault is not None:
            raise VimDeployError("VIM-415", f"{type(params).__name__} refused: {fault}")
        status = self._functions[type(params)].launch(
            ctypes.byref(params), tactic, workspace or None, stream or None
        )
        if status != 0:
            raise VimDeployError(
                "VIM-904",
                f"a kernel of {self.path.name} was not launched",
                why=f"CUDA error {status}",
                fix="error 209: build the library for this GPU, vim-deploy plugin build --arch "
                "native; error 1: the workspace is missing or the tactic does not fit the shape",
            )


def data_type(tensor: DeviceTensor) -> DataType:
    """The kernels' name of a tensor's dtype; VIM-415 for any other than fp32, fp16 and bf16."""
    names = {"float32": DataType.FP32, "float16": DataType.FP16, "bfloat16": DataType.BF16}
    name = str(tensor.dtype).rpartition(".")[2]
    if name not in names:
        raise VimDeployError(
            "VIM-415", f"dtype {name} is not one of the kernels'", why=", ".join(names)
        )
    return names[name]


def _pointer(name: str, tensor: DeviceTensor, shape: tuple[int, ...], dtype: DataType) -> int:
    given = tuple(int(size) for size in tensor.shape)
    if given != shape:
        raise VimDeployError("VIM-415", f"{name} has shape {given}, expected {shape}")
    if data_type(tensor) is not dtype:
        raise VimDeployError("VIM-415", f"{name} has dtype {tensor.dtype}, expected {dtype.name}")
    if not tensor.is_contiguous():
        raise VimDeployError("VIM-415", f"{name} is not contiguous")
    return tensor.data_ptr()


def selective_scan_params(
    u: DeviceTensor,
    dt: DeviceTensor,
    a: DeviceTensor,
    bc: DeviceTensor,
    d_skip: DeviceTensor,
    dt_bias: DeviceTensor,
    z: DeviceTensor | None,
    y: DeviceTensor,
    *,
    reverse: bool,
    delta_softplus: bool,
    b_off: int,
    c_off: int,
    z_off: int,
) -> Params:
    """Parameters of ``VimSelectiveScan`` from tensors on one device.

    As in ``vim_deploy.ops.selective_scan``: u, dt, y T[B,L,D]; a f[N,D]; bc T[B,L,K];
    d_skip, dt_bias f[D]; z T[B,L,Zc] or None. The tensors must outlive the launch.

    Raises:
        VimDeployError: VIM-415 for a shape, dtype or layout that does not fit.
    """
    batch, length, channels = (int(size) for size in u.shape)
    states, columns = int(a.shape[0]), int(bc.shape[-1])
    t, f = data_type(u), DataType.FP32
    rows = (batch, length)
    z_columns = 0 if z is None else int(z.shape[-1])
    return PARAMS[SELECTIVE_SCAN.name](
        u=_pointer("u", u, (*rows, channels), t),
        dt=_pointer("dt", dt, (*rows, channels), t),
        A=_pointer("A", a, (states, channels), f),
        bc=_pointer("bc", bc, (*rows, columns), t),
        Dskip=_pointer("Dskip", d_skip, (channels,), f),
        dt_bias=_pointer("dt_bias", dt_bias, (channels,), f),
        z=None if z is None else _pointer("z", z, (*rows, z_columns), t),
        y=_pointer("y", y, (*rows, channels), t),
        batch=batch,
        length=length,
        channels=channels,
        states=states,
        bc_columns=columns,
        z_columns=z_columns,
        b_off=b_off,
        c_off=c_off,
        z_off=z_off,
        reverse=int(reverse),
        delta_softplus=int(delta_softplus),
        has_z=int(z is not None),
        type=int(t),
    )
