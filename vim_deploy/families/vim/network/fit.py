"""Weights into a model, strictly: every key has to be there and fit, or all that do not are listed.

Only what follows from the image size is adapted: the position embedding is interpolated, and the
rope tables are computed anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from torch import Tensor, nn

from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.families.vim.network.infer import infer_config
from vim_deploy.families.vim.network.pos_embed import Grid, interpolate_grid, interpolate_official
from vim_deploy.families.vim.network.rope import rope_tables
from vim_deploy.families.vim.network.shapes import rope_agrees
from vim_deploy.model.keys import require_keys
from vim_deploy.recipe.catalog import short_name
from vim_deploy.recipe.schema import CUSTOM
from vim_deploy.specs import PosEmbedMode

#: Ways of fitting a position embedding to another grid.
#: ``KeyReport.pos_embed`` when nothing had to be fitted.
AS_STORED = "as stored"
_POS_EMBED = "pos_embed"
_ROPE = ("rope.freqs_cos", "rope.freqs_sin")
_DENSE_ADVICE = (
    "give the configuration that the checkpoint was trained with: --config FILE.json, or "
    "--model RECIPE; or leave both out"
)


@dataclass(frozen=True)
class KeyReport:
    """What was loaded.

    Attributes:
        tensors, parameters: number of state-dict entries and of numbers in them.
        pos_embed: ``as stored``, ``grid 14x14 to 16x16``, ``official 14x14 to 16x16`` or ``none``.
        notes: sentences on what was adapted.
    """

    tensors: int
    parameters: int
    pos_embed: str
    notes: tuple[str, ...]


def load_into(
    model: nn.Module,
    state_dict: Mapping[str, Tensor],
    *,
    config: VimConfig,
    pos_embed: str = "grid",
    stored_config: VimConfig | None = None,
    vim_path: str = "",
) -> KeyReport:
    """Load ``state_dict`` into ``model`` by the official keys.

    Args:
        model: built from ``config``.
        state_dict: float tensors on the CPU; not changed.
        config: architecture and image size of the Vim in ``model``.
        pos_embed: ``grid`` or ``official``, how a position embedding of another image size is
            fitted (see ``vim_deploy.families.vim.network.pos_embed``).
        stored_config: the checkpoint's own image size, when known; else its grid has to be the
            model's or a square.
        vim_path: where the Vim is in ``model``, for networks around one.

    Raises:
        VimDeployError: VIM-202 (``pos_embed``), VIM-404 (keys that are missing, unexpected or
            misshapen; rope tables of another formula), VIM-406 (no way from the old grid to the
            new one).
    """
    if pos_embed not in get_args(PosEmbedMode):
        fix = nearest(pos_embed, get_args(PosEmbedMode))
        raise VimDeployError("VIM-202", f"unknown way to fit pos_embed: {pos_embed!r}", fix=fix)
    prefix = f"{vim_path}." if vim_path else ""
    expected = model.state_dict()
    check_keys(state_dict, expected, prefix, config)
    own = {key.removeprefix(prefix): key for key in state_dict if key.startswith(prefix)}
    vim = {name: state_dict[key] for name, key in own.items()}
    notes: list[str] = []
    how = _fit_pos_embed(vim, config, stored_config, pos_embed, notes)
    if config.if_rope:
        tables = {key: expected[prefix + key] for key in _ROPE}
        _fit_rope(vim, tables, config, notes)
    fitted = {**state_dict, **{key: vim[name] for name, key in own.items()}}
    model.load_state_dict(fitted, strict=True)
    parameters = sum(tensor.numel() for tensor in fitted.values())
    return KeyReport(len(fitted), parameters, how, tuple(notes))


def check_keys(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], prefix: str, config: VimConfig
) -> None:
    """VIM-404 with every key that does not fit; sizes that follow the image size are left out.

    Args:
        found: of the checkpoint.
        expected: of the model; only shapes and types count.
        prefix: of the Vim's keys.
        config: of the Vim.
    """
    require_keys(
        found,
        expected,
        lambda: _DENSE_ADVICE if prefix else _advice(found, config),
        lambda key, own, wanted: _fits(key.removeprefix(prefix), own, wanted),
    )


def _fits(key: str, found: Tensor, expected: Tensor) -> bool:
    shape, wanted = list(found.shape), list(expected.shape)
    row_axis = 1 if key == _POS_EMBED else 0 if key in _ROPE else None
    if row_axis is not None and len(shape) == len(wanted) and shape[row_axis] > 0:
        shape[row_axis] = wanted[row_axis]
    return shape == wanted and found.is_floating_point()


def _advice(found: Mapping[str, Tensor], config: VimConfig) -> str:
    """The model option that fits these weights, as far as their shapes tell."""
    try:
        name = infer_config(found).name
    except VimDeployError as error:
        return error.fix
    if name == CUSTOM:
        return "--model auto, or --config FILE.json with the keywords the model was trained with"
    if name == short_name(config):
        return "use the checkpoint as the training script saved it; or --config FILE.json"
    return f"--model {name}, which has these sizes, or --model auto"


def _fit_pos_embed(
    fitted: dict[str, Tensor],
    config: VimConfig,
    stored: VimConfig | None,
    mode: str,
    notes: list[str],
) -> str:
    if not config.if_abs_pos_embed:
        return "none"
    rows = fitted[_POS_EMBED].shape[1]
    old_grid, old_positions = _stored_grid(rows, config, stored)
    if old_grid == config.grid_hw:
        return AS_STORED
    change = f"{_grid_text(old_grid)} to {_grid_text(config.grid_hw)}"
    if mode == "official":
        _check_official(old_grid, config.grid_hw)
        extra = len(old_positions)
        fitted[_POS_EMBED] = interpolate_official(fitted[_POS_EMBED], config.num_patches, extra)
        if old_positions != tuple(range(extra)):
            notes.append(
                "--pos-embed official takes the first rows for class tokens, and they sit at "
                f"{', '.join(map(str, old_positions))}: rows are shifted as in the official code"
            )
    else:
        fitted[_POS_EMBED] = interpolate_grid(
            fitted[_POS_EMBED], old_grid, config.grid_hw, old_positions, config.cls_positions
        )
    notes.append(f"position embedding interpolated ({mode}): {change} patches")
    return f"{mode} {change}"


def _stored_grid(
    rows: int, config: VimConfig, stored: VimConfig | None
) -> tuple[Grid, tuple[int, ...]]:
    """Grid and class-token positions of the checkpoint's position embedding."""
    known = stored or config
    if rows == known.num_tokens:
        return known.grid_hw, known.cls_positions
    side = math.isqrt(max(0, rows - len(config.cls_positions)))
    is_square = side > 0 and side * side == rows - len(config.cls_positions)
    if stored is not None:
        patch_h, patch_w = stored.patch_hw
        size = (side - 1) * stored.stride + patch_h
        own = f"img_size={size}" if is_square and patch_h == patch_w else "its own img_size"
        raise VimDeployError(
            "VIM-404",
            "position embedding and image size of the model do not belong together",
            why=f"pos_embed has {rows} rows; img_size={stored.img_size}, "
            f"stride={stored.stride} need {stored.num_tokens}",
            fix=f"describe the checkpoint with {own}, and choose another size by --image-size",
        )
    if not is_square:
        raise VimDeployError(
            "VIM-406",
            "position embedding of an unknown grid",
            why=f"{rows} rows, {len(config.cls_positions)} of them class tokens, are no square",
            fix="give the checkpoint's own img_size=[height, width] with --config FILE.json",
        )
    # The stored model's own size, for where the class tokens sit among that many patches.
    height, width = ((side - 1) * config.stride + patch for patch in config.patch_hw)
    own_size = config.replace(img_size=height if height == width else (height, width))
    return (side, side), own_size.cls_positions


def _check_official(old: Grid, new: Grid) -> None:
    if old[0] != old[1] or new[0] != new[1]:
        raise VimDeployError(
            "VIM-406",
            "--pos-embed official fits square images only",
            why=f"from {_grid_text(old)} to {_grid_text(new)} patches; the official function takes "
            "the square root of their number",
            fix="--pos-embed grid",
        )


def _grid_text(grid: Grid) -> str:
    return f"{grid[0]}x{grid[1]}"


def _fit_rope(
    fitted: dict[str, Tensor],
    expected: Mapping[str, Tensor],
    config: VimConfig,
    notes: list[str],
) -> None:
    """Check the stored rope tables against the formula; for another grid take the model's own."""
    cosines, sines = (fitted[key] for key in _ROPE)
    rows = cosines.shape[0]
    grid = math.isqrt(rows)
    computed = rope_tables(config.embed_dim, grid, config.pt_hw_seq_len)
    same_shape = cosines.shape == sines.shape == computed[0].shape
    if not same_shape or not rope_agrees((cosines, sines), computed):
        raise VimDeployError(
            "VIM-404",
            "rope tables of the checkpoint do not follow the formula",
            why=f"{rows} rows, compared with a {grid}x{grid} grid and "
            f"pt_hw_seq_len={config.pt_hw_seq_len}",
            fix="give the pt_hw_seq_len it was trained with in --config FILE.json, or --model auto",
        )
    if cosines.shape != expected[_ROPE[0]].shape:
        fitted.update({key: expected[key].clone() for key in _ROPE})
        new = math.isqrt(expected[_ROPE[0]].shape[0])
        notes.append(f"rope tables computed for {new}x{new} patches instead of {grid}x{grid}")
