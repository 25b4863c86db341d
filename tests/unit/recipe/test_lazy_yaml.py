"""Configurations of LazyConfig: tags are not obeyed, references are followed, sizes are bounded."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.support.detector_cases import detector_case
from vim_deploy.cli.model_files import config_in
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.official_dense import read_official
from vim_deploy.recipe import lazy_yaml
from vim_deploy.recipe.lazy_yaml import read_lazy_config

ALIASES = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))


def bad(why: str) -> VimDeployError:
    return VimDeployError("VIM-416", "not a model config", why=why)


def read(folder: Path, text: str) -> dict[str, Any]:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return read_lazy_config(path, bad)


@pytest.mark.parametrize("short", ["F01", "F02"])
def test_what_was_saved_is_what_was_built(short: str) -> None:
    case = detector_case(short)
    found = read_lazy_config(case.yaml, bad)
    assert set(found) == {"model"}
    assert read_official(found) == read_official(dict(case.config))


def test_values(tmp_path: Path) -> None:
    text = """
    words: [null, ~, true, off, "true", plain text, 'no']
    numbers: [1, -2, 0, 1.5, .5, -1e-05, 1.0e+3, 010, 12:30, 0x10, .inf, '7']
    block: |
      two
      lines
    ? quoted
    : {a: {b: []}}
    7: number as a key
    """
    found = read(tmp_path, text)
    assert found["words"] == [None, None, True, False, "true", "plain text", "no"]
    assert found["numbers"] == [1, -2, 0, 1.5, 0.5, -1e-05, 1000.0, "010", "12:30", "0x10", ".inf",
                                "7"]  # fmt: skip
    assert found["block"] == "two\nlines\n"
    assert found["quoted"] == {"a": {"b": []}}
    assert found["7"] == "number as a key"


def test_tags_are_not_obeyed(tmp_path: Path) -> None:
    proof = tmp_path / "made"
    text = f"""
    shape: !!python/object:os.stat_result {{channels: 16, height: null}}
    pair: !!python/tuple [1, 2]
    call: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{proof}']]
    new: !!python/object/new:os.system {{args: ['touch {proof}']}}
    name: !!python/name:os.system ''
    own: !Thing {{a: 1}}
    text: !!str 12
    """
    found = read(tmp_path, text)
    assert not proof.exists()
    assert found["shape"] == {"channels": 16, "height": None}
    assert found["pair"] == [1, 2]
    assert found["call"] == "!!python/object/apply:pathlib.Path.touch"
    assert found["new"] == "!!python/object/new:os.system"
    assert found["name"] == "!!python/name:os.system"
    assert found["own"] == "!Thing"
    assert found["text"] == "12"


def test_references(tmp_path: Path) -> None:
    text = """
    train: {classes: 5, size: "${model.side}", lost: "${nothing.here}"}
    model:
      side: 64
      again: ${.side}
      heads:
        classes: ${train.classes}
        size: ${train.size}
        list:
        - {own: 3, classes: "${...classes}", mine: "${.own}", side: "${....side}"}
        - ${..list[0].own}
        whole: ${..net}
      net: {width: 8, twice: "${.width}", text: "${.width} px", env: "${oc.env:HOME}"}
    """
    model = read(tmp_path, text)["model"]
    heads = model["heads"]
    assert model["again"] == 64
    assert (heads["classes"], heads["size"]) == (5, 64)
    assert heads["list"] == [{"own": 3, "classes": 5, "mine": 3, "side": 64}, 3]
    assert heads["whole"] == {**model["net"]}
    assert model["net"]["twice"] == 8
    assert model["net"]["text"] == "${.width} px"
    assert model["net"]["env"] == "${oc.env:HOME}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [1", "not valid YAML"),
        ("a: 1\na: 2", "'a' is there twice"),
        ("a: {<<: {b: 1}}", "merge key"),
        ("{[1]: 2}", "a key is a list"),
        ("- 1", "not a mapping"),
        ("", "0 documents"),
        ("a: 1\n---\nb: 2", "2 documents"),
        ("a: *b", "alias *b"),
        ("a: &a [*a]", "alias *a"),
        ("a0: &a0 [1, 2, 3]\n" + ALIASES, "20000 values"),
        ("a: [" + ",".join("0" * 20_001) + "]", "20000 values"),
        ("a: " + "[" * 50_000, "32 levels"),
        ("- " * 50_000, "32 levels"),
        ("a: ${.b}\nb: ${.a}", "leads back to itself"),
        ("a: ${.a}", "leads back to itself"),
        ("a: {b: '${a}'}", "leads back to itself"),
        ("a: ${c.d}", "${c.d} at a names nothing"),
        ("a: ${...b}", "names nothing"),
        ("a: [1]\nb: '${a[1]}'", "names nothing"),
        ("a: 99999999999999999999", "64 bits"),
        ("a: 1" + " " * lazy_yaml.MAX_BYTES, "bytes"),
        ('a: "\\ud800"', "half of a surrogate"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(VimDeployError) as refused:
        read(tmp_path, text)
    assert refused.value.code == "VIM-416"
    assert why in refused.value.why


def test_references_that_double(tmp_path: Path) -> None:
    lines = [f"a{n}: ['${{a{n - 1}}}', '${{a{n - 1}}}']" for n in range(1, 14)]
    with pytest.raises(VimDeployError, match="more values"):
        read(tmp_path, "\n".join(["a0: [1, 2, 3, 4, 5]", *lines]))


def test_without_the_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(VimDeployError) as refused:
        read(tmp_path, "a: 1")
    assert refused.value.code == "VIM-301"
    assert "pyyaml" in refused.value.message


def test_config_takes_it_by_its_name(tmp_path: Path) -> None:
    assert config_in(detector_case("F02").yaml) == read_lazy_config(detector_case("F02").yaml, bad)
    broken = tmp_path / "broken.YML"
    broken.write_text("a: [", encoding="utf-8")
    with pytest.raises(VimDeployError) as refused:
        config_in(broken)
    assert refused.value.code == "VIM-416"
    assert "LazyConfig" in refused.value.fix
