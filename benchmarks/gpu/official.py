"""The official Vim classifier on a GPU, from a checkout and built extensions that PATHs name.

Nothing of either is in this repository. What the checkout imports on the way and does not need to
compute logits is stood in for: names that newer releases of timm have moved or dropped, and the
language model's helpers of mamba_ssm.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vim_deploy.families.vim.config import VimConfig

#: Folders of a checkout of hustvl/Vim that hold its packages.
_PACKAGES = ("mamba-1p1p1", "causal-conv1d", "vim")
#: What the classifier's file imports of timm: today's place of each old name.
_MOVED = {"timm.models.registry": "timm.models", "timm.models.layers": "timm.layers"}
#: Helpers of a timm that had one registry per file; they take part in training only.
_DROPPED = ("_cfg", "_load_weights")
_LANGUAGE = {
    "mamba_ssm.utils.generation": ("GenerationMixin",),
    "mamba_ssm.utils.hf": ("load_config_hf", "load_state_dict_hf"),
}
#: Fields of a config that the official constructor knows under the same names.
_KEYWORDS = (
    *("img_size", "patch_size", "stride", "depth", "embed_dim", "d_state", "num_classes"),
    *("rms_norm", "residual_in_fp32", "fused_add_norm", "final_pool_type", "if_abs_pos_embed"),
    *("if_rope", "if_rope_residual", "bimamba_type", "if_cls_token", "if_divide_out"),
    *("use_double_cls_token", "use_middle_cls_token"),
)


def load(
    checkout: Path, extensions: Path, config: VimConfig, state: Mapping[str, Tensor]
) -> nn.Module:
    """The official module of ``config`` with these weights, on the CPU and in eval mode.

    Args:
        checkout: of hustvl/Vim; its folders ``mamba-1p1p1``, ``causal-conv1d`` and ``vim``.
        extensions: folder with the two built extension modules.

    Raises:
        FileNotFoundError: a folder is not there.
        ImportError: the extensions or the checkout do not fit this Python and PyTorch.
        RuntimeError: a weight is missing, left over or of another shape.
    """
    folders = [extensions, *(checkout / name for name in _PACKAGES)]
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not there: give a checkout of hustvl/Vim")
    sys.path[:0] = [str(folder) for folder in folders if str(folder) not in sys.path]
    _stand_in(checkout)
    build: Any = importlib.import_module("models_mamba").VisionMamba
    model: nn.Module = build(**{name: getattr(config, name) for name in _KEYWORDS})
    model.load_state_dict(dict(state), strict=True)
    return model.eval()


def _stand_in(checkout: Path) -> None:
    for old, new in _MOVED.items():
        try:
            importlib.import_module(old)
        except ImportError:
            sys.modules[old] = importlib.import_module(new)
    transformer = importlib.import_module("timm.models.vision_transformer")
    for name in _DROPPED:
        if not hasattr(transformer, name):
            setattr(transformer, name, lambda *_given, **_named: {})
    # Its __init__ imports the language model.
    package = types.ModuleType("mamba_ssm")
    package.__path__ = [str(checkout / "mamba-1p1p1" / "mamba_ssm")]
    sys.modules.setdefault(package.__name__, package)
    for module_name, names in _LANGUAGE.items():
        module = types.ModuleType(module_name)
        for name in names:
            setattr(module, name, object)
        sys.modules.setdefault(module_name, module)
