"""Which parts of a model compute in float32, or are not quantized: a TOML file, read strictly.

The same policy types the exported graph (``graph.precision``) and the PyTorch module
(``model.precision``). A part is a role in a block; the shipped policy is
``default-precision.toml`` beside this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from vim_deploy.codec import decode, stored
from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.families.base import ModelConfig
from vim_deploy.files import require_file
from vim_deploy.places import BLOCK_ROLES, MODEL_ROLES, PRODUCT_ROLES
from vim_deploy.untrusted import read_toml

FORMAT: Final = 1
ROLES: Final = (*MODEL_ROLES, *BLOCK_ROLES)
#: Roles of the products that int8 and fp8 quantize.
QUANTIZED_ROLES: Final = PRODUCT_ROLES

_DEFAULT = Path(__file__).with_name("default-precision.toml")
#: A policy is a page of text; anything larger is another kind of file.
_MAX_BYTES = 1 << 20
#: Block numbers, which have few digits.
_RANGE = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?")


@stored(keys=("roles", "reason", "blocks"), sparse=("blocks",))
@dataclass(frozen=True)
class Rule:
    """``roles`` stay as they are: in float32, or not quantized.

    Attributes:
        roles: names out of ``ROLES``.
        blocks: numbers and ranges, both ends included, such as ``0-3,23``; None for all.
        reason: for people.

    Raises:
        VimDeployError: VIM-420 for what names no part of a model.
    """

    roles: tuple[str, ...]
    blocks: str | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if not self.roles:
            raise _refuse("roles = [] in a rule: expected a list of roles")
        for role in self.roles:
            if role not in ROLES:
                raise _refuse(f"unknown role {role!r}", nearest(role, ROLES))
        if self.blocks is None:
            return
        without = [role for role in self.roles if role in MODEL_ROLES]
        if without:
            why = f"{without[0]} is not in any block"
            raise _refuse(why, "give it a rule of its own, without blocks")
        object.__setattr__(self, "blocks", ranges_text(self.ranges or ()))

    @property
    def ranges(self) -> tuple[tuple[int, int], ...] | None:
        """Pairs of first and last block; None for all blocks."""
        if self.blocks is None:
            return None
        found = [_RANGE.fullmatch(part.strip()) for part in self.blocks.split(",")]
        pairs = tuple((int(m[1]), int(m[2] or m[1])) for m in found if m is not None)
        if len(pairs) < len(found):
            fix = 'write numbers and ranges: blocks = "0-3,23"'
            raise _refuse(f"blocks = {self.blocks!r}", fix)
        if any(low > high for low, high in pairs):
            raise _refuse(f"blocks = {self.blocks!r}: a range ends before it begins")
        return pairs

    def covers(self, role: str, block: int | None) -> bool:
        """Whether this rule speaks about ``role`` of ``block``."""
        if role not in self.roles:
            return False
        if self.ranges is None:
            return True
        return block is not None and any(low <= block <= high for low, high in self.ranges)


@stored(head={"format": FORMAT}, sparse=("not_quantized",))
@dataclass(frozen=True)
class PrecisionPolicy:
    """The rules of one file; what no rule covers computes in the precision asked for.

    Attributes:
        keep_fp32: what stays in float32 where the graph is typed in 16 bits.
        not_quantized: products that int8 and fp8 leave in the precision around them.

    Raises:
        VimDeployError: VIM-420 for a role in ``not_quantized`` that is no product.
    """

    keep_fp32: tuple[Rule, ...] = ()
    not_quantized: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        for rule in self.not_quantized:
            for role in rule.roles:
                if role not in QUANTIZED_ROLES:
                    fix = f"quantized are {', '.join(QUANTIZED_ROLES)}"
                    raise _refuse(f"{role} is not quantized anyway", fix)

    def quantizes(self, role: str, block: int | None = None) -> bool:
        """Whether int8 and fp8 quantize ``role`` (of block number ``block``, from 0)."""
        if role not in QUANTIZED_ROLES:
            return False
        return not any(rule.covers(role, block) for rule in self.not_quantized)

    def keeps_fp32(self, role: str, block: int | None = None) -> bool:
        """Whether ``role`` (of block number ``block``, counted from 0) stays in float32."""
        return any(rule.covers(role, block) for rule in self.keep_fp32)

    def as_toml(self, comment: str = "") -> str:
        """The policy as a file that ``load_policy`` reads; ``comment`` stands above it."""
        # By hand: the standard library reads TOML and writes none.
        lines = [f"# {line}".rstrip() for line in comment.splitlines()]
        lines += [f"format = {FORMAT}"]
        tables = [("keep_fp32", rule) for rule in self.keep_fp32]
        tables += [("not_quantized", rule) for rule in self.not_quantized]
        for table, rule in tables:
            lines += ["", f"[[{table}]]", f"roles = [{', '.join(map(_toml_string, rule.roles))}]"]
            lines += [f"blocks = {_toml_string(rule.blocks)}"] if rule.blocks else []
            lines += [f"reason = {_toml_string(rule.reason)}"] if rule.reason else []
        return "\n".join(lines) + "\n"

    def require_blocks(self, count: int) -> None:
        """VIM-420 when a rule names a block that a model of ``count`` blocks does not have."""
        for rule in (*self.keep_fp32, *self.not_quantized):
            for low, high in rule.ranges or ():
                if high >= count:
                    raise _invalid(
                        "the file",
                        f"a rule names block {max(low, count)}; the model has {count} blocks",
                        f"name blocks 0 to {count - 1} in that rule",
                    )


def default_policy() -> PrecisionPolicy:
    """The shipped policy."""
    return _load(_DEFAULT)


def load_policy(path: Path) -> PrecisionPolicy:
    """Read a policy file.

    Raises:
        VimDeployError: VIM-401 when there is no such file, VIM-420 for anything wrong in it.
    """
    return _load(require_file(path, "precision policy"))


def chosen_policy(path: Path | None, config: ModelConfig) -> PrecisionPolicy:
    """The policy in ``path``, or the shipped one for None, for a model of that many blocks.

    Raises:
        VimDeployError: as ``load_policy``; VIM-420 for a rule on blocks that are not there.
    """
    # By what it needs: a config with ssm_cfg, a dict, is no key.
    return _chosen(path, config.blocks)


@cache
def _chosen(path: Path | None, blocks: int) -> PrecisionPolicy:
    policy = default_policy() if path is None else load_policy(path)
    policy.require_blocks(blocks)
    return policy


def _load(path: Path) -> PrecisionPolicy:
    table = read_toml(path, lambda why: _invalid(str(path), why), max_bytes=_MAX_BYTES)
    return decode(
        table,
        PrecisionPolicy,
        lambda why: _invalid(str(path), why),
        on_unknown=lambda key, fix: _invalid(str(path), f"unknown key {key!r}", fix),
        on_own=lambda error: _invalid(str(path), error.message, error.fix),
    )


def _invalid(where: str, why: str, fix: str = "") -> VimDeployError:
    return VimDeployError(
        "VIM-420",
        f"{where} is not a valid precision policy",
        why=why,
        fix=fix or "docs/precision.md shows the shipped one",
    )


def _refuse(message: str, fix: str = "") -> VimDeployError:
    return VimDeployError("VIM-420", message, fix=fix)


def _toml_string(text: str) -> str:
    """A basic string of TOML 1.0: quotes, backslashes and control characters escaped."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda m: f"\\u{ord(m[0]):04x}", escaped) + '"'


def ranges_text(ranges: Iterable[tuple[int, int]]) -> str:
    """Pairs of first and last block as a rule writes them: ``0-3,23``."""
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
