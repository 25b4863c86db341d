"""What the kernels refuse, in which words, and which tactic they choose."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HOST = Path(__file__).parents[3] / "plugins" / "tests" / "host"
sys.path.insert(0, str(HOST))

import kernel_library  # noqa: E402 - lives beside the shim it compiles
from kernel_calls import empty_params  # noqa: E402
from kernel_library import (  # noqa: E402
    TACTICS,
    BiCausalConvParams,
    BiSelectiveScanParams,
    Params,
    SelectiveScanParams,
)

from vim_deploy.ops import contract  # noqa: E402

CUDA_ERROR_INVALID_VALUE = 1
POINTERS = {
    SelectiveScanParams: ["u", "dt", "A", "bc", "d_skip", "dt_bias", "y"],
    BiCausalConvParams: ["xz", "w", "bias", "u2"],
    BiSelectiveScanParams: ["u2", "dt", "xdbl", "A", "d_skip", "dt_bias", "xz", "y"],
}
OPS = list(POINTERS)


@pytest.fixture(scope="module")
def library() -> kernel_library.KernelLibrary:
    if reason := kernel_library.missing_host_tools():
        pytest.skip(reason)
    return kernel_library.host_library()


def params_of(op: type) -> Params:
    """Parameters of ``op`` that validate; the pointers are aligned but lead nowhere."""
    params = next(p for p in empty_params() if isinstance(p, op))
    for name in POINTERS[op]:
        setattr(params, name, 1 << 20)
    return params


def assert_refused(library: kernel_library.KernelLibrary, params: Params, words: str) -> None:
    fault = library.validate(params)
    assert fault is not None
    assert words in fault
    for tactic in (*TACTICS.values(), 99, -1):
        assert library.launch(params, tactic) == CUDA_ERROR_INVALID_VALUE


@pytest.mark.parametrize("op", OPS)
def test_good_parameters_pass(library: kernel_library.KernelLibrary, op: type) -> None:
    assert library.validate(params_of(op)) is None


@pytest.mark.parametrize(("op", "name"), [(op, name) for op in OPS for name in POINTERS[op]])
def test_null_and_misaligned_pointers(
    library: kernel_library.KernelLibrary, op: type, name: str
) -> None:
    params = params_of(op)
    setattr(params, name, None)
    assert_refused(library, params, "null pointer")
    setattr(params, name, (1 << 20) + 8)
    assert_refused(library, params, "not 16-byte aligned")


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("batch", (0, -1), "batch B is below 1"),
        ("length", (0, -5), "sequence length L is below 1"),
        ("channels", (0, -8), "number of channels D is below 1"),
        ("type", (3, -1), "type is not fp32, fp16 or bf16"),
    ],
)
def test_sizes_and_types(
    library: kernel_library.KernelLibrary,
    op: type,
    name: str,
    values: tuple[int, ...],
    words: str,
) -> None:
    for value in values:
        params = params_of(op)
        setattr(params, name, value)
        assert_refused(library, params, words)


@pytest.mark.parametrize("op", OPS)
def test_products_that_overflow(library: kernel_library.KernelLibrary, op: type) -> None:
    params = params_of(op)
    params.batch = params.length = 2**31 - 1
    assert_refused(library, params, "larger than a grid can cover")


@pytest.mark.parametrize(
    ("op", "changes", "words"),
    [
        (SelectiveScanParams, {"states": 0}, "below 1"),
        (SelectiveScanParams, {"states": contract.MAX_STATE + 1}, "above 64"),
        (SelectiveScanParams, {"b_off": 17}, "[b_off, b_off + N)"),
        (SelectiveScanParams, {"b_off": -1}, "[b_off, b_off + N)"),
        (SelectiveScanParams, {"c_off": 2**31 - 1}, "[c_off, c_off + N)"),
        (SelectiveScanParams, {"bc_columns": 0}, "[b_off, b_off + N)"),
        (SelectiveScanParams, {"has_z": 1, "z_columns": 8, "z_off": 1}, "[z_off, z_off + D)"),
        (SelectiveScanParams, {"has_z": 1, "z_columns": 8}, "z is a null pointer"),
        (SelectiveScanParams, {"reverse": 2}, "must be 0 or 1"),
        (BiCausalConvParams, {"width": 0}, "below 1"),
        (BiCausalConvParams, {"width": contract.MAX_CONV_WIDTH + 1}, "above 16"),
        (BiCausalConvParams, {"x_off": 9}, "[x_off, x_off + D)"),
        (BiSelectiveScanParams, {"states": 65}, "above 64"),
        (BiSelectiveScanParams, {"scale": float("nan")}, "scale"),
        (BiSelectiveScanParams, {"scale": 0.0}, "scale"),
        (BiSelectiveScanParams, {"b_off": 17}, "[b_off, b_off + N)"),
        (BiSelectiveScanParams, {"c_off": 17}, "[c_off, c_off + N)"),
        (BiSelectiveScanParams, {"z_off": 9}, "[z_off, z_off + D)"),
        (BiSelectiveScanParams, {"low_rank": 1}, "rank of dt_w is below 1"),
        (BiSelectiveScanParams, {"low_rank": 1, "rank": 33}, "[dt_off, dt_off + r)"),
        (BiSelectiveScanParams, {"delta_softplus": 7}, "must be 0 or 1"),
    ],
)
def test_offsets_and_flags(
    library: kernel_library.KernelLibrary, op: type, changes: dict[str, float], words: str
) -> None:
    params = params_of(op)
    for name, value in changes.items():
        setattr(params, name, value)
    assert_refused(library, params, words)


def test_null_params(library: kernel_library.KernelLibrary) -> None:
    for prefix in kernel_library.PREFIXES.values():
        function = getattr(library.c, f"{prefix}_validate")
        assert function(None) == b"params is a null pointer"
        assert getattr(library.c, f"{prefix}_launch")(None, 0, None, None) != 0


def test_missing_or_misaligned_workspace(library: kernel_library.KernelLibrary) -> None:
    params = params_of(BiSelectiveScanParams)
    params.length = 500
    for tactic in ("serial", "serial1", "chunked4", "cluster4", "cluster8", "generic"):
        need = library.workspace_bytes(params, TACTICS[tactic])
        # The serial kernel's scratch is of whole warps, which own 64 channels or 32.
        channels = {"serial": 64, "serial1": 32}.get(tactic, params.channels)
        assert need == 4 * params.batch * params.length * channels
        assert library.launch(params, TACTICS[tactic]) == CUDA_ERROR_INVALID_VALUE
        assert library.launch(params, TACTICS[tactic], (1 << 20) + 4) == CUDA_ERROR_INVALID_VALUE


def test_workspace_is_zero_where_outputs_stay_in_registers(
    library: kernel_library.KernelLibrary,
) -> None:
    params = params_of(BiSelectiveScanParams)
    params.length = 197
    for tactic in ("chunked8", "cluster4", "cluster8"):
        assert library.workspace_bytes(params, TACTICS[tactic]) == 0
    # What kDefault asks for covers whichever tactic is then taken.
    assert library.workspace_bytes(params, 0) >= library.workspace_bytes(params, TACTICS["serial"])
    assert library.workspace_bytes(params_of(SelectiveScanParams), TACTICS["serial"]) == 0


def test_contract_version(library: kernel_library.KernelLibrary) -> None:
    assert library.c.vim_plugins_contract_version() == contract.CONTRACT_VERSION


@pytest.mark.parametrize(
    ("batch", "channels", "length", "tactic"),
    [
        (1, 384, 197, "cluster4"),  # Vim-Ti: even the smallest blocks leave multiprocessors free
        (1, 768, 197, "cluster8"),
        (1, 1536, 197, "cluster8"),
        (8, 384, 197, "chunked16"),
        (16, 384, 197, "chunked16"),
        (17, 384, 197, "serial1"),  # 49 rows a multiprocessor
        (23, 384, 197, "serial"),
        (44, 384, 197, "serial"),  # two blocks a multiprocessor, a warp a scheduler
        (45, 384, 197, "serial1"),
        (66, 384, 197, "serial1"),
        (67, 384, 197, "serial"),
        (128, 384, 197, "serial"),
        (64, 768, 6085, "serial"),
        (128, 384, 49, "serial"),
        (128, 384, 32, "chunked16"),  # too short for the serial prologue
        (1, 8, 5, "cluster4"),
        (1, 12, 5, "generic"),
    ],
)
def test_default_rule_on_132_multiprocessors(
    library: kernel_library.KernelLibrary, batch: int, channels: int, length: int, tactic: str
) -> None:
    params = params_of(BiSelectiveScanParams)
    params.batch, params.channels, params.length = batch, channels, length
    params.z_off, params.xz_columns = channels, 2 * channels
    assert library.default_tactic(params) == TACTICS[tactic]
    assert library.tactics(params)[0] == TACTICS[tactic]


@pytest.mark.parametrize("sm_count", [16, 108, 132])
@pytest.mark.parametrize(("op", "rows"), [(BiSelectiveScanParams, 48), (SelectiveScanParams, 96)])
def test_the_serial_kernel_is_taken_by_rows_a_multiprocessor(
    library: kernel_library.KernelLibrary, op: type, rows: int, sm_count: int
) -> None:
    params = params_of(op)
    params.channels, params.length, params.batch = 8, 197, rows * sm_count // 8
    for name in ("z_off", "z_columns", "xz_columns"):
        if hasattr(params, name):
            setattr(params, name, 8 if name == "z_off" else 16)
    serial = {TACTICS["serial"], TACTICS["serial1"]}
    assert library.default_tactic(params, sm_count) in serial
    params.batch -= 1
    assert library.default_tactic(params, sm_count) not in serial


@pytest.mark.parametrize(
    "changes",
    [
        {"states": 5},
        {"states": 8, "delta_softplus": 0},
        {"channels": 12, "xz_columns": 24, "z_off": 12},
        {"delta_softplus": 0},
        {"b_off": 1, "c_off": 17, "xdbl_columns": 34},
        {"xdbl_columns": 33},
    ],
)
def test_only_the_generic_kernel_takes_odd_shapes(
    library: kernel_library.KernelLibrary, changes: dict[str, int]
) -> None:
    params = params_of(BiSelectiveScanParams)
    for name, value in changes.items():
        setattr(params, name, value)
    assert library.tactics(params) == [TACTICS["generic"]]
    for tactic in TACTICS.keys() - {"default", "generic"}:
        assert library.launch(params, TACTICS[tactic], 1 << 20) == CUDA_ERROR_INVALID_VALUE


@pytest.mark.parametrize("states", [1, 8])
def test_kernels_of_few_states_read_columns_at_any_offset(
    library: kernel_library.KernelLibrary, states: int
) -> None:
    params = params_of(SelectiveScanParams)
    # MambaVision-L: rank 49, an odd row, no gate.
    params.states, params.batch, params.length, params.channels = states, 8, 196, 392
    params.b_off, params.c_off, params.bc_columns = 49, 49 + states, 49 + 2 * states
    wide = {8: ["serial", "chunked8", "chunked4"], 1: ["serial", "chunked4"]}[states]
    assert library.tactics(params, sm_count=16) == [TACTICS[name] for name in wide]
    params.states, params.c_off, params.bc_columns = 16, 65, 81
    assert library.tactics(params, sm_count=16) == [TACTICS["generic"]]


def test_the_serial_kernel_of_both_directions_has_16_states(
    library: kernel_library.KernelLibrary,
) -> None:
    params = params_of(BiSelectiveScanParams)
    params.length, params.batch = 196, 64
    params.c_off = params.states = 8
    assert library.tactics(params) == [TACTICS["chunked4"], TACTICS["chunked8"]]
    params.c_off = params.states = 16
    assert TACTICS["serial"] in library.tactics(params)


def test_tactics_that_leave_most_of_the_gpu_idle_are_not_offered(
    library: kernel_library.KernelLibrary,
) -> None:
    params = params_of(BiSelectiveScanParams)
    params.length = 197
    params.channels, params.z_off, params.xz_columns = 384, 384, 768
    # Blocks on 132 multiprocessors: serial 6, serial1 12, chunked16 24, chunked8 48, chunked4
    # and cluster8 96.
    few = ["cluster4", "cluster8", "chunked8", "chunked4"]
    assert library.tactics(params) == [TACTICS[name] for name in few]
    every = ["chunked16", "serial", "serial1", "cluster8", "chunked8", "cluster4", "chunked4"]
    assert library.tactics(params, sm_count=16) == [TACTICS[name] for name in every]


def test_tactics_are_unique_and_never_the_default_id(
    library: kernel_library.KernelLibrary,
) -> None:
    for op in OPS:
        params = params_of(op)
        params.batch = 64
        found = library.tactics(params)
        assert found
        assert len(set(found)) == len(found)
        assert 0 not in found
