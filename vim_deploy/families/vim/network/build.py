"""One way to build any model of the family: a classifier, a segmentation or detection network."""

from __future__ import annotations

from vim_deploy.families.base import ModelConfig
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.families.vim.network.dense.backbone import SegmentationBackbone
from vim_deploy.families.vim.network.dense.detector import DetectionBackbone
from vim_deploy.families.vim.network.dense.detector_heads import Detector
from vim_deploy.families.vim.network.dense.segmentor import Segmentor
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.recipe.dense_config import DenseConfig

#: Each has the Vim in it as ``vim``.
VimNetwork = VisionMamba | SegmentationBackbone | Segmentor | DetectionBackbone | Detector


def build_network(config: ModelConfig, dense: DenseConfig | None = None) -> VimNetwork:
    """The module with its initial weights, in eval mode.

    Raises:
        VimDeployError: VIM-408 when ``dense`` cannot stand on that backbone.
    """
    assert isinstance(config, VimConfig)
    if dense is None:
        return VisionMamba(config)
    if dense.task == "detection":
        if dense.detector is None:
            return DetectionBackbone(config, dense)
        return Detector(config, dense)
    if dense.decode_head is None:
        return SegmentationBackbone(config, dense)
    return Segmentor(config, dense)
