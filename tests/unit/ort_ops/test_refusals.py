"""What the native ops refuse inside ONNX Runtime, in the contract's words, and what they let be."""

from __future__ import annotations

import ctypes
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import ort_ops
from vim_deploy.ops import OPS, contract

CONV = """g (float[{shape}] xz, float[2,W,D] w, float[2,D] b) => (float[2,B,L,D] u2) {{
    u2 = vim_deploy.VimBiCausalConv {attributes} (xz, w, b)
}}"""
SCAN = """g (float[B,L,D] u, float[B,L,D] dt, float[N,D] A, float[B,L,K] bc, float[D] Dskip,
           float[D] bias, float[B,L,Z] z) => (float[B,L,D] y) {{
    y = vim_deploy.VimSelectiveScan <reverse = 0, delta_softplus = 1, b_off = 0, c_off = 4,
                                     z_off = 2, has_z = {has_z}> (u, dt, A, bc, Dskip, bias{z})
}}"""
BI_SCAN = """g (float[2,B,L,D] u2, float[M,B,L,D] dt, float[2,B,L,K] xdbl, float[2,N,D] A,
              float[2,D] Dskip, float[2,D] bias, float[B,L,Z] xz) => (float[B,L,D] y) {{
    y = vim_deploy.VimBiSelectiveScan <delta_softplus = 1, b_off = {b_off}, c_off = 4, dt_off = 0,
                                       z_off = 0, low_rank = 0, scale = {scale}>
        (u2, dt, xdbl, A, Dskip, bias, xz)
}}"""


@pytest.fixture(scope="module")
def library() -> Path:
    return ort_ops.built_library()


def conv(shape: str = "B,L,C", attributes: str = "<x_off = 1>") -> bytes:
    return ort_ops.text_model(CONV.format(shape=shape, attributes=attributes))


def conv_feeds(xz: tuple[int, ...] = (1, 8, 6), width: int = 4, bias: int = 5) -> dict[str, Any]:
    shapes = {"xz": xz, "w": (2, width, 5), "b": (2, bias)}
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def bi_scan(b_off: int = 0, scale: str = "0.5") -> bytes:
    return ort_ops.text_model(BI_SCAN.format(b_off=b_off, scale=scale))


def bi_feeds(directions: int = 2, states: int = 4, batch: int = 1) -> dict[str, Any]:
    shapes = {
        "u2": (2, batch, 3, 5),
        "dt": (directions, batch, 3, 5),
        "xdbl": (2, batch, 3, 8),
        "A": (2, states, 5),
        "Dskip": (2, 5),
        "bias": (2, 5),
        "xz": (batch, 3, 5),
    }
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def refusal(model: bytes, library: Path, feeds: dict[str, Any]) -> str:
    """What ONNX Runtime says when it loads or runs the model."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - its classes share no base of their own
        ort_ops.open_session(model, library).run(None, feeds)
    return str(caught.value)


@pytest.mark.parametrize(
    ("model", "feeds", "words"),
    [
        (conv(), conv_feeds((1, 8, 5)), "columns [x_off, x_off + D) lie outside the rows of xz"),
        (conv(), conv_feeds(width=17), "convolution width W is above 16"),
        (conv(), conv_feeds((1, 0, 6)), "sequence length L is below 1"),
        (conv(), conv_feeds(bias=4), "input b has shape [2, 4], expected [2, 5]"),
        (
            conv("A,B,L,C"),
            conv_feeds((1, 1, 8, 6)),
            "input xz has shape [1, 1, 8, 6], expected 3 dimensions",
        ),
        (
            conv(),
            conv_feeds((0, 3_000_000_000, 6)),
            "input xz has shape [0, 3000000000, 6]; every size must lie between 0 and 2^31 - 1",
        ),
        (conv(attributes=""), conv_feeds(), "attribute x_off is missing or not an integer"),
        (conv(attributes="<x_off = 1.5>"), conv_feeds(), "attribute x_off is missing or not an"),
        (conv(attributes="<x_off = -1>"), conv_feeds(), "attribute x_off is -1, must lie between"),
        (
            conv(attributes="<x_off = 2147483648>"),
            conv_feeds(),
            "attribute x_off is 2147483648, must lie between 0 and 2^31 - 1",
        ),
        (bi_scan(), bi_feeds(states=65), "state size N is above 64"),
        (bi_scan(5), bi_feeds(), "columns [b_off, b_off + N) lie outside the rows of xdbl"),
        (bi_scan(scale="0.0"), bi_feeds(), "scale must be finite and not 0"),
        (
            bi_scan(),
            bi_feeds(directions=1),
            "input dt has shape [1, 1, 3, 5], expected [2, 1, 3, 5]",
        ),
    ],
)
def test_refused_in_words(library: Path, model: bytes, feeds: dict[str, Any], words: str) -> None:
    said = refusal(model, library, feeds)
    assert words in said
    assert any(f"{op}: " in said for op in OPS)


def scan_feeds(batch: int = 1) -> dict[str, Any]:
    shapes = {"u": (batch, 3, 5), "dt": (batch, 3, 5), "A": (4, 5), "bc": (batch, 3, 8)}
    shapes |= {"Dskip": (5,), "bias": (5,), "z": (batch, 3, 7)}
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


def test_the_gate_is_there_when_it_is_wanted(library: Path) -> None:
    def model(has_z: int, z: str) -> bytes:
        return ort_ops.text_model(SCAN.format(has_z=has_z, z=z))

    feeds = scan_feeds()
    assert "VimSelectiveScan: input z is missing" in refusal(model(1, ""), library, feeds)
    assert "has_z is 2, must be 0 or 1" in refusal(model(2, ", z"), library, feeds)
    (without,) = ort_ops.open_session(model(0, ""), library).run(None, feeds)
    (unread,) = ort_ops.open_session(model(0, ", z"), library).run(None, feeds)
    (gated,) = ort_ops.open_session(model(1, ", z"), library).run(None, feeds)
    np.testing.assert_array_equal(unread, without)
    np.testing.assert_allclose(gated, without / (1.0 + np.exp(-1.0)), rtol=1e-6)


def test_an_empty_batch_gives_an_empty_output(library: Path) -> None:
    for model, feeds, shape in (
        (conv(), conv_feeds((0, 8, 6)), (2, 0, 8, 5)),
        (ort_ops.text_model(SCAN.format(has_z=1, z=", z")), scan_feeds(0), (0, 3, 5)),
        (bi_scan(), bi_feeds(batch=0), (0, 3, 5)),
    ):
        (output,) = ort_ops.open_session(model, library).run(None, feeds)
        assert output.shape == shape


def test_a_session_takes_the_library_once(library: Path) -> None:
    session = ort_ops.open_session(conv(), library, library)
    assert session.run(None, conv_feeds())[0].shape == (2, 1, 8, 5)


def test_another_library_of_the_same_ops_is_refused(library: Path) -> None:
    """The mark of a session says whose ops it has; here as if libvim_ort_cuda.so had come first."""
    with pytest.raises(Exception, match="the session has the ops of vim_ort_cuda already"):
        ort_ops.open_session(conv(), library, entries={"vim_deploy.native_ops": "vim_ort_cuda"})


@pytest.mark.parametrize("text", ["", "x", "-1", "2.5", "1234567"])
def test_a_number_of_threads_is_a_number(library: Path, text: str) -> None:
    entries = {"vim_deploy.intra_op_num_threads": text}
    if text == "":
        assert ort_ops.open_session(conv(), library, entries=entries) is not None
        return
    with pytest.raises(Exception, match="must be a number of threads, or 0"):
        ort_ops.open_session(conv(), library, entries=entries)


def test_what_it_says_of_itself(library: Path) -> None:
    handle = ctypes.CDLL(str(library))
    handle.vim_plugins_build_info.restype = ctypes.c_char_p
    said = json.loads(handle.vim_plugins_build_info())
    assert said["name"] == "vim_ort_cpu"
    assert said["provider"] == "cpu"
    assert said["contract_version"] == contract.CONTRACT_VERSION
    assert handle.vim_plugins_contract_version() == contract.CONTRACT_VERSION
    assert (said["domain"], said["domain_version"]) == (contract.DOMAIN, contract.DOMAIN_VERSION)
    assert said["ops"] == list(OPS)
    assert said["ort_api"] == 17
    assert said["instruction_set"] in said["instruction_sets"]
    assert len(bytes.fromhex(said["kernels"])) == 8
    assert said["compiler"].split()[0] in ("g++", "clang++")


def test_it_shows_three_functions(library: Path) -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm is not on PATH")
    shown = ort_ops.output_of(nm, "-D", "--defined-only", str(library)).split()
    assert sorted(shown[2::3]) == [
        "RegisterCustomOps",
        "vim_plugins_build_info",
        "vim_plugins_contract_version",
    ]
