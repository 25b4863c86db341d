"""Which published variant a checkpoint is: by its shapes, its stored arguments, and what is asked.

The variants of a size have the same shapes, and differ in the stride alone. Any grid of patches is
then of one image size at stride 16 and of another at stride 8: which of the two it is, the stored
arguments decide, or the size that a variant is published for; else the user is asked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.families.vim.names import FACTORY_NAMES
from vim_deploy.families.vim.names import variant as named_variant
from vim_deploy.families.vim.network.shapes import Shapes
from vim_deploy.model.keys import cannot_infer
from vim_deploy.recipe.catalog import find_variant

ImageSize = int | tuple[int, int]

#: Official keywords that no shape tells, and what the official names of factories say of them.
_KEYWORDS = (
    "stride", "if_bidirectional", "flip_img_sequences_ratio", "final_pool_type", "norm_epsilon",
    "use_middle_cls_token", "if_divide_out", "if_rope_residual",
)  # fmt: skip
_WORDS = (
    (re.compile(r"_stride(\d{1,4})_"), "stride", int),
    (re.compile(r"_final_pool_(none|mean|max|all)_"), "final_pool_type", str),
    (re.compile(r"_(?:midclstok|middle_cls_token)"), "use_middle_cls_token", lambda _: True),
)


def said(args: Mapping[str, Any]) -> dict[str, Any]:
    """Official keywords that the stored arguments give, or the factory's name among them."""
    values: dict[str, Any] = {}
    factory = args.get("model")
    if isinstance(factory, str) and factory.startswith("vim_"):
        for pattern, name, read in _WORDS:
            if match := pattern.search(factory):
                values[name] = read(match[match.re.groups])
    for name in _KEYWORDS:
        if type(args.get(name)) is type(getattr(VimConfig, name)):
            values[name] = args[name]
    return values


def stored_size(args: Mapping[str, Any]) -> int | None:
    """Side of the pictures in the stored arguments, in pixels."""
    size = args.get("input_size")
    return size if type(size) is int else None


def grid_of(image: int, config: VimConfig) -> int:
    """Patches a side that ``config`` cuts a square of ``image`` pixels into."""
    return (image - config.patch_hw[0]) // config.stride + 1


def square(count: int | None) -> int | None:
    """Side of a square of ``count`` patches; None when it is not a square."""
    if count is None or count < 1:
        return None
    side = math.isqrt(count)
    return side if side * side == count else None


def image_side(grid: int, config: VimConfig) -> int:
    """Pixels that ``grid`` patches a side cover."""
    return (grid - 1) * config.stride + config.patch_hw[0]


def choose_variant(
    shapes: Shapes, args: Mapping[str, Any], model: str | None, image_size: ImageSize | None
) -> tuple[str | None, bool, list[str]]:
    """Short name of the variant, None for none; whether it is an assumption; what is to be said.

    Args:
        shapes: of the weights.
        args: training arguments in the file.
        model: what the user says it is, a short or an official name.
        image_size: what the user asks for; the checkpoint's own where nothing else tells that.

    Raises:
        VimDeployError: VIM-404 when the weights or the arguments in the file are not those of
            ``model``, or their grid is that of another variant's pictures; VIM-407 when two
            variants fit.
    """
    keywords = said(args)
    differing = {
        name: _differences(shapes, keywords, named_variant(name)) for name in FACTORY_NAMES
    }
    fits = [name for name, found in differing.items() if not found]
    factory = args.get("model")
    stored = next((name for name, known in FACTORY_NAMES.items() if known == factory), None)
    grid = square(shapes.patches)
    if model is not None:
        find_variant(model)
        name = next(short for short, known in FACTORY_NAMES.items() if model in (short, known))
        if name not in fits:
            fix = (
                f"--model {fits[0]}, or --model auto" if fits else "--model auto, or --config FILE"
            )
            raise _other(model, "; ".join(differing[name]), fix)
        if stored in fits and stored != name:
            why = f"the stored training arguments name {stored} ({factory}), not {name}"
            raise _other(model, why, f"--model {stored}, or --model auto")
        if grid is not None and stored is None:
            _require_pictures(name, fits, shapes, args, image_size, grid)
        said_both = f"; {shapes.tokens} rows of pos_embed fit {_readings(fits, grid or 1)}"
        told = grid is None or stored or _by_stored_size(fits, args, grid)
        is_open = len(fits) > 1 and not (told or _by_published_size(fits, grid or 1))
        return name, False, [f"architecture {name}, as asked{said_both if is_open else ''}"]
    if stored in fits:
        return stored, False, [f"architecture {stored}: the stored training arguments name it "
                               f"({factory})"]  # fmt: skip
    statements = []
    if stored is not None:
        statements.append(
            f"the stored training arguments name {factory}, but the shapes are not its own "
            f"({'; '.join(differing[stored])}); the name is not used"
        )
    if not fits or grid is None:
        return None, True, statements
    told = _by_stored_size(fits, args, grid) or _by_published_size(fits, grid)
    told = told or [name for name in fits if image_size == _side(name, grid)]
    if not told and len(fits) > 1:
        raise cannot_infer(
            "the architecture cannot be inferred: two variants have these shapes",
            f"{shapes.tokens} rows of pos_embed fit {_readings(fits, grid)}",
            f"--model {' or --model '.join(fits)}; or the checkpoint's own size with --image-size",
        )
    return (told or fits)[0], True, statements


def _require_pictures(
    name: str,
    fits: list[str],
    shapes: Shapes,
    args: Mapping[str, Any],
    image_size: ImageSize | None,
    grid: int,
) -> None:
    """VIM-404 when the grid is that of another variant's pictures, and nobody says it is not."""
    told = _by_stored_size(fits, args, grid)
    why = f"input_size {stored_size(args)} in the stored training arguments says which"
    if not told and image_size != _side(name, grid):
        told, why = _by_published_size(fits, grid), "the latter is the published size"
    if told and name not in told:
        raise _other(
            name,
            f"{shapes.tokens} rows of pos_embed fit {_readings((name, *told), grid)}: {why}",
            f"--model {told[0]}; or where the first is right, --image-size {_side(name, grid)}",
        )


def _differences(shapes: Shapes, keywords: Mapping[str, Any], config: VimConfig) -> list[str]:
    """What of ``config`` the shapes and the stored keywords contradict."""
    own = encode(config)
    told = [f"{name} {value!r} in the stored training arguments, not {own[name]!r}"
            for name, value in keywords.items() if own[name] != value]  # fmt: skip
    return shapes.differences(config) + told


def _by_stored_size(fits: list[str], args: Mapping[str, Any], grid: int) -> list[str]:
    size = stored_size(args)
    return [name for name in fits if size and grid_of(size, named_variant(name)) == grid]


def _by_published_size(fits: list[str], grid: int) -> list[str]:
    configs = {name: named_variant(name) for name in fits}
    return [name for name, config in configs.items() if config.grid_hw == (grid, grid)]


def _side(name: str, grid: int) -> int:
    return image_side(grid, named_variant(name))


def _readings(names: Iterable[str], grid: int) -> str:
    return " and ".join(
        f"{name} at {_side(name, grid)} pixels (stride {named_variant(name).stride})"
        for name in names
    )


def _other(model: str, why: str, fix: str) -> VimDeployError:
    return VimDeployError("VIM-404", f"these are not the weights of {model}", why=why, fix=fix)
