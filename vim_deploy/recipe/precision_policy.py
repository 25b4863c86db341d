"""Which parts of a half-precision model compute in float32: a TOML file, read strictly.

The same policy types the exported graph (``graph.precision``) and the PyTorch module
(``model.precision``). A part is a role in a block; the shipped policy is
``default-precision.toml`` beside this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.files import require_file
from vim_deploy.places import BLOCK_ROLES, MODEL_ROLES
from vim_deploy.untrusted import read_toml

FORMAT: Final = 1
ROLES: Final = (*MODEL_ROLES, *BLOCK_ROLES)

_DEFAULT = Path(__file__).with_name("default-precision.toml")
#: A policy is a page of text; anything larger is another kind of file.
_MAX_BYTES = 1 << 20
_RULE_KEYS = ("roles", "blocks", "reason")
#: Block numbers, which have few digits.
_RANGE = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?")


@dataclass(frozen=True)
class Rule:
    """``roles`` stay in float32: in the blocks of ``ranges`` (both ends included), None: all."""

    roles: tuple[str, ...]
    ranges: tuple[tuple[int, int], ...] | None
    reason: str

    def covers(self, role: str, block: int | None) -> bool:
        """Whether this rule speaks about ``role`` of ``block``."""
        if role not in self.roles:
            return False
        if self.ranges is None:
            return True
        return block is not None and any(low <= block <= high for low, high in self.ranges)


@dataclass(frozen=True)
class PrecisionPolicy:
    """The rules of one file; what no rule covers computes in the precision asked for."""

    rules: tuple[Rule, ...]

    def keeps_fp32(self, role: str, block: int | None = None) -> bool:
        """Whether ``role`` (of block number ``block``, counted from 0) stays in float32."""
        return any(rule.covers(role, block) for rule in self.rules)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form, as stored in an exported file; ``from_dict`` reads it."""
        return {
            "format": FORMAT,
            "keep_fp32": [
                {"roles": list(rule.roles), "reason": rule.reason, **_blocks_entry(rule)}
                for rule in self.rules
            ],
        }

    def as_toml(self, comment: str = "") -> str:
        """The policy as a file that ``load_policy`` reads; ``comment`` stands above it."""
        lines = [f"# {line}".rstrip() for line in comment.splitlines()]
        lines += [f"format = {FORMAT}"]
        for rule in self.rules:
            lines += ["", "[[keep_fp32]]", f"roles = [{', '.join(map(_toml_string, rule.roles))}]"]
            lines += [f"blocks = {_toml_string(text)}" for text in _blocks_entry(rule).values()]
            lines += [f"reason = {_toml_string(rule.reason)}"] if rule.reason else []
        return "\n".join(lines) + "\n"

    def require_blocks(self, count: int) -> None:
        """VIM-420 when a rule names a block that a model of ``count`` blocks does not have."""
        for rule in self.rules:
            for low, high in rule.ranges or ():
                if high >= count:
                    raise _invalid(
                        "the file",
                        f"a rule names block {max(low, count)}; the model has {count} blocks",
                        f"name blocks 0 to {count - 1} in that rule",
                    )

    @classmethod
    def stored(cls, value: Mapping[str, Any]) -> PrecisionPolicy:
        """The policy as an exported file holds it: nothing at all for float32."""
        return cls.from_dict(value, "the file's policy") if value else cls(())

    @classmethod
    def from_dict(
        cls, value: Mapping[str, Any], where: str = "precision policy"
    ) -> PrecisionPolicy:
        """Check and read a parsed file; VIM-420 with what is wrong in ``where``."""
        return cls(tuple(_rule(entry, where) for entry in _rules(value, where)))


def default_policy() -> PrecisionPolicy:
    """The shipped policy."""
    return _read(_DEFAULT)


def load_policy(path: Path) -> PrecisionPolicy:
    """Read a policy file.

    Raises:
        VimDeployError: VIM-401 when there is no such file, VIM-420 for anything wrong in it.
    """
    return _load(require_file(path, "precision policy"))


@cache
def _read(path: Path) -> PrecisionPolicy:
    return _load(path)


def _load(path: Path) -> PrecisionPolicy:
    table = read_toml(path, lambda why: _invalid(str(path), why), max_bytes=_MAX_BYTES)
    return PrecisionPolicy.from_dict(table, str(path))


def _invalid(where: str, why: str, fix: str = "") -> VimDeployError:
    return VimDeployError(
        "VIM-420",
        f"{where} is not a valid precision policy",
        why=why,
        fix=fix or "docs/precision.md shows the shipped one",
    )


def _rules(value: Mapping[str, Any], where: str) -> list[Any]:
    for key in value:
        if key not in ("format", "keep_fp32"):
            raise _invalid(where, f"unknown key {key!r}", nearest(key, ("format", "keep_fp32")))
    if value.get("format") != FORMAT:
        raise _invalid(where, f"format = {value.get('format')!r}", f"write format = {FORMAT}")
    rules = value.get("keep_fp32", [])
    if not isinstance(rules, list) or not all(isinstance(rule, Mapping) for rule in rules):
        raise _invalid(where, "keep_fp32 is no list of tables", "write [[keep_fp32]] for each rule")
    return rules


def _rule(entry: Mapping[str, Any], where: str) -> Rule:
    for key in entry:
        if key not in _RULE_KEYS:
            raise _invalid(where, f"unknown key {key!r} in a rule", nearest(key, _RULE_KEYS))
    roles, blocks, reason = entry.get("roles"), entry.get("blocks"), entry.get("reason", "")
    if not isinstance(roles, list) or not roles:
        raise _invalid(where, f"roles = {roles!r} in a rule: expected a list of roles")
    for role in roles:
        if role not in ROLES:
            raise _invalid(where, f"unknown role {role!r}", nearest(str(role), ROLES))
    if not isinstance(reason, str):
        raise _invalid(where, f"reason = {reason!r}: expected text")
    if blocks is None:
        return Rule(tuple(roles), None, reason)
    without = [role for role in roles if role in MODEL_ROLES]
    if without:
        raise _invalid(
            where, f"{without[0]} is not in any block", "give it a rule of its own, without blocks"
        )
    return Rule(tuple(roles), _ranges(blocks, where), reason)


def _ranges(text: object, where: str) -> tuple[tuple[int, int], ...]:
    """``"0-3,23"`` as pairs of first and last block."""
    found = [_RANGE.fullmatch(part.strip()) for part in str(text).split(",")]
    if not isinstance(text, str) or not all(found):
        raise _invalid(where, f"blocks = {text!r}", 'write numbers and ranges: blocks = "0-3,23"')
    pairs = [(int(m[1]), int(m[2] or m[1])) for m in found if m is not None]
    if any(low > high for low, high in pairs):
        raise _invalid(where, f"blocks = {text!r}: a range ends before it begins")
    return tuple(pairs)


def _toml_string(text: str) -> str:
    """A basic string of TOML 1.0: quotes, backslashes and control characters escaped."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda m: f"\\u{ord(m[0]):04x}", escaped) + '"'


def _blocks_entry(rule: Rule) -> dict[str, str]:
    if rule.ranges is None:
        return {}
    return {"blocks": ranges_text(rule.ranges)}


def ranges_text(ranges: Iterable[tuple[int, int]]) -> str:
    """Pairs of first and last block as a rule writes them: ``0-3,23``."""
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
