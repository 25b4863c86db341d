"""The precision policy file: what it says, and what is refused in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.source import REPOSITORY
from vim_deploy.codec import decode, encode
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.recipe.precision_policy import (
    ROLES,
    PrecisionPolicy,
    Rule,
    chosen_policy,
    default_policy,
    load_policy,
)


def read_back(policy: PrecisionPolicy) -> PrecisionPolicy:
    value = json.loads(json.dumps(encode(policy)))
    return decode(value, PrecisionPolicy, lambda why: VimDeployError("VIM-410", why))


def policy_of(text: str, folder: Path) -> PrecisionPolicy:
    path = folder / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return load_policy(path)


def test_shipped_policy() -> None:
    kept = {role for role in ROLES if default_policy().keeps_fp32(role, 0)}
    assert kept == {"residual", "rope", "head"}


def test_a_config_with_ssm_cfg_has_a_policy() -> None:
    config = VimConfig(depth=2, ssm_cfg={"d_conv": 3})
    assert chosen_policy(None, config) == default_policy()


def test_the_document_shows_the_shipped_policy(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "precision.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert policy_of(shown, tmp_path) == default_policy()
    assert all(f"`{role}`" in text for role in ROLES)


def test_rules_by_block(tmp_path: Path) -> None:
    text = 'format = 1\n[[keep_fp32]]\nroles = ["x_proj", "scan"]\nblocks = "0-2, 5"\n'
    policy = policy_of(text, tmp_path)
    assert [block for block in range(8) if policy.keeps_fp32("scan", block)] == [0, 1, 2, 5]
    assert not policy.keeps_fp32("conv", 0)
    assert not policy.keeps_fp32("scan", None)
    policy.require_blocks(6)
    with pytest.raises(VimDeployError, match="block 5; the model has 5 blocks") as caught:
        policy.require_blocks(5)
    assert caught.value.code == "VIM-420"


def test_json_round_trip(tmp_path: Path) -> None:
    text = 'format = 1\n[[keep_fp32]]\nroles = ["scan"]\nblocks = "3,7-9"\nreason = "why"\n'
    for policy in (policy_of(text, tmp_path), default_policy()):
        assert read_back(policy) == policy


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("format = 2", "format = 2"),
        ("", "format = None"),
        ("format = 1\nkeep = 3", "unknown key 'keep'"),
        ("format = 1\nkeep_fp32 = 3", "keep_fp32: expected a list"),
        ("format = 1\n[[keep_fp32]]\nrole = ['scan']", "unknown key 'keep_fp32[0].role'"),
        ("format = 1\n[[keep_fp32]]\nroles = []", "expected a list of roles"),
        ("format = 1\n[[keep_fp32]]\nroles = 'scan'", "roles: expected a list, got text"),
        ("format = 1\n[[keep_fp32]]\nroles = ['norm']", "unknown role 'norm'"),
        ("format = 1\n[[keep_fp32]]\nroles = ['scan']\nreason = 3", "expected text"),
        ("format = 1\n[[keep_fp32]]\nroles = ['scan']\nblocks = '3-1'", "ends before it begins"),
        ("format = 1\n[[keep_fp32]]\nroles = ['scan']\nblocks = 'all'", "blocks = 'all'"),
        ("format = 1\n[[keep_fp32]]\nroles = ['scan']\nblocks = 3", "blocks: expected text"),
        (f"format = 1\n[[keep_fp32]]\nroles = ['scan']\nblocks = '{'9' * 5000}'", "blocks = "),
        ("format = 1\n[[keep_fp32]]\nroles = [['scan']]", "roles[0]: expected text"),
        ("format = " + "1" * 5000, "not valid TOML"),
        ("format = nan", "'format' holds nan"),
        ("format = " + "[" * 5000 + "]" * 5000, "levels deep"),
        ("format = 1\n[[keep_fp32]]\nroles = ['head']\nblocks = '0'", "head is not in any block"),
        ("format = [", "not valid TOML"),
    ],
)
def test_refused(text: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(VimDeployError) as caught:
        policy_of(text, tmp_path)
    assert caught.value.code == "VIM-420"
    assert why in caught.value.why


def test_file_missing_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(VimDeployError) as caught:
        load_policy(tmp_path / "none.toml")
    assert caught.value.code == "VIM-401"
    with pytest.raises(VimDeployError, match="not a valid precision policy") as caught:
        policy_of("#" * (2 << 20), tmp_path)
    assert "more than 1048576 bytes" in caught.value.why


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(VimDeployError) as caught:
        load_policy(path)
    assert caught.value.code == "VIM-420"


def test_toml_round_trip(tmp_path: Path) -> None:
    rules = (
        Rule(("scan", "conv"), "0-3,7", 'quotes " and \\ and\nlines\tand \x7f, größer'),
        Rule(("head",), None, ""),
    )
    for policy in (PrecisionPolicy(rules), PrecisionPolicy(()), default_policy()):
        text = policy.as_toml("two\n\nlines")
        assert policy_of(text, tmp_path) == policy
        assert text.startswith("# two\n#\n# lines\nformat = 1\n")
