"""The configuration inside a checkpoint: read as data, within limits, whatever it says."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import pytest

from vim_deploy.recipe.stored_config import MAX_CHARACTERS, MAX_LINE, MAX_VALUES, read_assignments

#: As mmcv writes it: assignments of nested dict(...) calls.
MMCV = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
crop_size = (512, 512)
model = dict(
    type='EncoderDecoder',
    pretrained=None,
    backbone=dict(type='VisionMambaSeg', img_size=512, out_indices=[5, 11, 17, 23], if_fpn=True),
    decode_head=dict(
        type='UPerHead',
        norm_cfg=norm_cfg,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    test_cfg=dict(mode='slide', crop_size=crop_size, stride=(341, 341)))
optimizer = dict(
    type='AdamW', lr=6e-05, betas=(0.9, 0.999),
    paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.0), 'pos_embed': dict(x=-1)}))
work_dir = './work_dirs/x'
"""


def test_what_mmcv_writes() -> None:
    found = read_assignments(MMCV)
    assert set(found) == {"norm_cfg", "crop_size", "model", "optimizer", "work_dir"}
    assert found["crop_size"] == [512, 512]
    assert found["model"]["decode_head"]["norm_cfg"] == found["norm_cfg"]
    assert found["model"]["test_cfg"]["crop_size"] == [512, 512]
    assert found["model"]["pretrained"] is None
    assert found["model"]["backbone"]["if_fpn"] is True
    assert found["optimizer"]["paramwise_cfg"]["custom_keys"]["pos_embed"] == {"x": -1}
    assert found["optimizer"]["lr"] == 6e-5


@pytest.mark.parametrize(
    "source",
    [
        "model = __import__('os').system('touch {path}')",
        "model = open('{path}', 'w')",
        "model = [open('{path}', 'w') for _ in range(1)]",
        "model = f\"{{open('{path}', 'w')}}\"",
        "model = (lambda: open('{path}', 'w'))()",
        "model = dict(a=1, **dict(b=open('{path}', 'w')))",
        "model = dict([('a', open('{path}', 'w'))])",
        "import os; model = os.environ",
        "exec(\"open('{path}', 'w')\")\nmodel = unknown",
        "class model:\n    x = open('{path}', 'w')",
        "@open\ndef model():\n    pass",
        "model = 2 ** 2 ** 2 ** 10",
        "model = 'a' * 10 ** 9",
        "model = ...",
        "model = b'bytes'",
        "model = 1j",
        "model = {{1: 2}}",
        "model = {{**{{'a': 1}}}}",
        "model, other = 1, 2",
        "model.x = 3",
        "model += 1",
        "model: int = 1",
    ],
)
def test_nothing_is_run_and_nothing_guessed(source: str, tmp_path: Path) -> None:
    path = tmp_path / "made"
    assert "model" not in read_assignments(source.format(path=path))
    assert not path.exists()


def test_a_part_that_is_no_data_is_left_out() -> None:
    found = read_assignments("model = dict(a=1, b=lambda x: x, c=[f(1)], d={'e': dict(f=2)})")
    assert found == {"model": {"a": 1, "d": {"e": {"f": 2}}}}


def test_a_name_that_lost_its_value() -> None:
    assert read_assignments("a = 1\nmodel = dict(x=a)\na = f()\nother = dict(x=a)") == {
        "model": {"x": 1},
        "other": {},
    }


@pytest.mark.parametrize(
    "source",
    [
        "model = " + "(" * 100_000,
        "model = " + "[" * 60 + "]" * 60,
        "model = " + "dict(a=" * 60 + "1" + ")" * 60,
        "model = " + "-" * 100_000 + "1",
        "model = " + "not " * 50_000 + "1",
        "model = 1" + " + 1" * 50_000,
        "model = x" + ".y" * 100_000,
        "model = x" + "[0]" * 60_000,
        "model = " + "lambda: " * 20_000 + "1",
        "model = 1" + " if 1 else 1" * 15_000,
        "if a: pass\n" + "elif a: pass\n" * 15_000,
        "model = f'{1" + " + 1" * 50_000 + "}'",
        "model = " + "9" * 100_000,
        "\n".join(" " * depth + "if a:" for depth in range(500)),
        "model = 'open",
        "model = dict(",
        "model = \x00",
        "model = '\ud800'",
        "\t\tmodel = 1\n \tx",
        "a = [" + "1, " * 10 * MAX_VALUES + "]",
        "x" * (MAX_CHARACTERS + 1),
        "a = [" + "1,\x0c" * (MAX_LINE // 2 + 1) + "]",
    ],
)
def test_hostile_sources_are_nothing(source: str) -> None:
    started = time.perf_counter()
    assert read_assignments(source) == {}
    # Generous for a busy machine: nothing here may grow with more than the length.
    assert time.perf_counter() - started < 20


@pytest.mark.parametrize("literal", ["'\\ud800'", "1e999", "-1e999", "1 << 70", "9" * 25])
def test_what_json_cannot_hold_is_no_value(literal: str) -> None:
    source = f"other = 1\nmodel = dict(a={literal}, b=[2], c=[{literal}])"
    assert read_assignments(source) == {"other": 1, "model": {"b": [2]}}


@pytest.mark.parametrize("text", ["\\d", "\\\x1b[2J"])
def test_what_python_says_of_a_source_is_not_shown(text: str) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert read_assignments(f"a = '{text}'\nb = 1 is 1") == {"a": text}
    assert not said


def test_names_that_double_are_stopped() -> None:
    lines = ["a0 = [1, 1]", *(f"a{i + 1} = [a{i}, a{i}]" for i in range(60)), "model = a60"]
    assert read_assignments("\n".join(lines)) == {}


def test_many_harmless_lines() -> None:
    found = read_assignments("\n".join(f"x{i} = {i}" for i in range(2_000)))
    assert len(found) == 2_000
