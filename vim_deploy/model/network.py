"""One way to build any model of this project: a classifier, a segmentation or detection network."""

from __future__ import annotations

from vim_deploy.model.dense.backbone import SegmentationBackbone
from vim_deploy.model.dense.detector import DetectionBackbone
from vim_deploy.model.dense.detector_heads import Detector
from vim_deploy.model.dense.segmentor import Segmentor
from vim_deploy.model.vim import VisionMamba
from vim_deploy.recipe.dense_config import DenseConfig
from vim_deploy.recipe.model_config import ModelConfig

#: Each has ``config``, ``dense`` (None for a classifier), ``vim`` and ``vim_path``.
Network = VisionMamba | SegmentationBackbone | Segmentor | DetectionBackbone | Detector


def build_network(config: ModelConfig, dense: DenseConfig | None = None) -> Network:
    """The module with its initial weights, in eval mode.

    Raises:
        VimDeployError: VIM-408 when ``dense`` cannot stand on that backbone.
    """
    if dense is None:
        return VisionMamba(config)
    if dense.task == "detection":
        if dense.detector is None:
            return DetectionBackbone(config, dense)
        return Detector(config, dense)
    if dense.decode_head is None:
        return SegmentationBackbone(config, dense)
    return Segmentor(config, dense)
