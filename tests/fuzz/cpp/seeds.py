"""Seeds of the C++ fuzz targets: ``seeds.py FOLDER`` writes ``FOLDER/TARGET/NUMBER``.

Needs nothing but Python. Without seeds a fuzzer spends its time on finding out what a header is.
"""

from __future__ import annotations

import base64
import json
import struct
import sys
import zlib
from pathlib import Path

_HASH = "0" * 64
#: A record with every field that the C++ library reads.
RECORD = {
    "format": 1,
    "plan": {"name": "m.plan", "sha256": _HASH, "bytes": 100},
    "runtime": "tensorrt",
    "runtime_version": "10.14.1.48",
    "inputs": [{"name": "image", "dtype": "float32", "shape": ["batch", 1, 8, 8]}],
    "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 3]}],
    "profiles": [{"image": {"min": [1, 1, 8, 8], "opt": [2, 1, 8, 8], "max": [4, 1, 8, 8]}}],
    "compute_capabilities": ["8.6"],
    "later_gpus": False,
    "plugin": {"name": "lib.so", "sha256": _HASH, "contract_version": 1, "embedded": False},
    "stripped": False,
    "flags": ["VERSION_COMPATIBLE"],
    "export": {
        "model": "vim",
        "preprocess": "none",
        "head": "logits",
        "precision": "fp32",
        "image": {
            "height": 8,
            "width": 8,
            "channels": 1,
            "mean": [0.5],
            "std": [2.5e-1],
            "crop_ratio": 0.875,
            "interpolation": "bicubic",
        },
        "labels": ["a", "\u00e9\U0001f600"],
    },
}
#: Pictures of 8 x 8 by Pillow: grey as it is, colour as a progressive one.
_JPEGS = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZG"
    "NywtQFdBRkxOUlNSMj5aYVpQYEpRUk//wAALCAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAABP/EABkQAAEF"
    "AAAAAAAAAAAAAAAAAAAFBiIxof/aAAgBAQAAPwAKW26hh//Z",
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZG"
    "NywtQFdBRkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09P"
    "T09PT09PT09PT09PT09PT09PT09PT09PT0//wgARCAAIAAgDASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAA"
    "AAP/xAAUAQEAAAAAAAAAAAAAAAAAAAAD/9oADAMBAAIQAxAAAAGAZ//EABYQAAMAAAAAAAAAAAAAAAAAAAACA//a"
    "AAgBAQABBQKTH//EABYRAAMAAAAAAAAAAAAAAAAAAAADFP/aAAgBAwEBPwGZZ//EABcRAQADAAAAAAAAAAAAAAAA"
    "AAIAAxH/2gAIAQIBAT8BFZyf/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAAgBAQAGPwJ//8QAFRABAQAAAAAAAAAA"
    "AAAAAAAAADH/2gAIAQEAAT8hk//aAAwDAQACAAMAAAAQA//EABYRAAMAAAAAAAAAAAAAAAAAAAABUf/aAAgBAwEB"
    "PxBwP//EABURAQEAAAAAAAAAAAAAAAAAAABB/9oACAECAQE/EIj/xAAVEAEBAAAAAAAAAAAAAAAAAAAAUf/aAAgB"
    "AQABPxCx/9k=",
)


def _png(kind: int, depth: int, interlaced: int = 0) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    # Filter bytes 0 everywhere: long enough for the passes of an interlaced picture, too.
    body = bytes(8 * (8 * channels * depth // 8 + 1) + 16)
    header = struct.pack(">IIBBBBB", 8, 8, depth, kind, 0, 0, interlaced)
    parts = [chunk(b"IHDR", header)]
    if kind == 3:
        parts += [chunk(b"PLTE", bytes(range(3 * 2**depth))), chunk(b"tRNS", b"\x80")]
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"text"))
    parts += [text, chunk(b"IDAT", zlib.compress(body)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _field(number: int, value: int | bytes) -> bytes:
    """A field of a protobuf message: a number below 128, or bytes below 16384 of them."""
    if isinstance(value, int):
        return bytes([*_number(number << 3), value])
    return bytes([*_number(number << 3 | 2), *_number(len(value))]) + value


def _number(value: int) -> list[int]:
    return [value] if value < 128 else [value & 127 | 128, value >> 7]


def _onnx(text: bytes, *, outside: bool = False) -> bytes:
    """A model of one node, with a function of our domain, that says ``text`` of itself."""

    def value(name: bytes, *sizes: int) -> bytes:
        free = _field(1, _field(2, b"batch"))
        shape = free + b"".join(_field(1, _field(1, size)) for size in sizes)
        return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, shape)))

    node = _field(1, b"image") + _field(2, b"logits") + _field(4, b"Op") + _field(7, b"vim_deploy")
    node += _field(5, _field(1, b"a") + _field(20, 2) + _field(3, 1))
    weights = _field(1, 2) + _field(2, 1) + _field(8, b"w") + _field(9, bytes(8))
    if outside:
        place = b"".join(
            _field(13, _field(1, key) + _field(2, entry))
            for key, entry in ((b"location", b"w.data"), (b"offset", b"0"), (b"length", b"8"))
        )
        weights = _field(1, b"\2") + _field(2, 1) + _field(8, b"w") + place + _field(14, 1)
    graph = _field(1, node) + _field(5, weights) + _field(10, b"vim_deploy: " + text)
    graph += _field(11, value(b"image", 1, 8, 8)) + _field(12, value(b"logits", 3))
    function = _field(1, b"Op") + _field(10, b"vim_deploy") + _field(4, b"x") + _field(5, b"y")
    function += _field(7, _field(1, b"x") + _field(2, b"y") + _field(4, b"Relu"))
    entry = _field(14, _field(1, b"vim_deploy") + _field(2, text))
    opsets = _field(8, _field(2, 18)) + _field(8, _field(1, b"vim_deploy") + _field(2, 1))
    return (
        _field(1, 8)
        + _field(2, b"vim-deploy")
        + _field(7, graph)
        + opsets
        + (_field(25, function) + (b"" if outside else entry))
    )


def seeds() -> dict[str, list[bytes]]:
    """Inputs of each target."""
    record = json.dumps(RECORD).encode()
    plain = json.dumps({**RECORD, "export": None, "plugin": None}, ensure_ascii=False).encode()
    said = json.dumps(RECORD["export"]).encode()
    # The numbers that the target takes off the front, and pixels.
    fitting = bytes((0, 0, 1, 0, 0, 9, 0, 0, 9, 1, 0, 0, 80, 0, 0, 0, 1, 1)) + bytes(
        (0, 0, 1, 0, 0, 20, 0, 0, 30, 0)
    )
    logits = bytes((0, 0, 0, 0, 0, 3, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 3, 0, 0, 4, 0))
    return {
        "json": [
            record,
            b'[1, -0.5e+3, true, false, null, "\\u00e9\\ud83d\\ude00\\n", {"a": {}}, []]',
        ],
        "record": [record, plain],
        "onnx": [_onnx(said), _onnx(said, outside=True), _onnx(b"{}")],
        "netpbm": [b" 3 2 255\n" + bytes(18), b"\n# c\n2 2\n100 " + bytes(4), b"P5 1 1 255\n0"],
        "picture": [
            *(
                _png(kind, depth)
                for kind, depth in ((0, 1), (0, 8), (2, 8), (3, 4), (4, 8), (6, 8))
            ),
            _png(2, 8, interlaced=1),
            *map(base64.b64decode, _JPEGS),
        ],
        "prepare": [fitting + bytes(range(256)) * 3, bytes(40)],
        "found": [bytes(60), bytes(range(1, 250)), b"\7" * 400],
        "classes": [logits + struct.pack("<12f", *range(12)) + b"\5", bytes(40)],
        "text": [
            "a\u202e\u2028\U000e0041\u00e9\U0001f600\u200f".encode() + b"\x1b[0m\x9b\xff\n\xc2\x85"
        ],
    }


def main() -> None:
    """Write them."""
    folder = Path(sys.argv[1])
    for target, inputs in seeds().items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(inputs):
            (folder / target / str(number)).write_bytes(data)


if __name__ == "__main__":
    main()
