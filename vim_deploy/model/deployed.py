"""What stands around the model in an exported graph: image preparation in front, head behind."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.heads.base import Head
from vim_deploy.model.network import Network
from vim_deploy.recipe.model_config import ModelConfig
from vim_deploy.specs import ImagePreparation

PREPROCESS_MODES = ("none", "normalize", "uint8")


def example_input(config: ModelConfig, preprocess: str, batch: int) -> Tensor:
    """A tensor of the shape and dtype that an exported graph takes; its values do not matter."""
    height, width = config.image_hw
    if preprocess == "uint8":
        return torch.zeros((batch, height, width, config.channels), dtype=torch.uint8)
    return torch.zeros((batch, config.channels, height, width))


class DeployedModel(nn.Module):
    """Preparation, network and head as one module, eager and traced alike.

    Input by ``preprocess``: ``none`` normalised float [B, C, H, W]; ``normalize`` float
    [B, C, H, W] in [0, 1]; ``uint8`` pixels [B, H, W, C].
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self, model: Network, image: ImagePreparation, preprocess: str, head: Head
    ) -> None:
        super().__init__()
        if preprocess not in PREPROCESS_MODES:
            raise VimDeployError(
                "VIM-202",
                f"--preprocess {preprocess!r} is not valid",
                fix=nearest(preprocess, PREPROCESS_MODES),
            )
        self.model = model
        self.preprocess = preprocess
        self.head = head
        channels = model.config.channels
        if preprocess != "none":
            self.register_buffer("pixel_mean", torch.tensor(image.mean).view(1, channels, 1, 1))
            self.register_buffer("pixel_std", torch.tensor(image.std).view(1, channels, 1, 1))
        self.eval()

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The head's outputs, in the order of its names."""
        if self.preprocess == "uint8":
            # Float first: TensorRT-RTX has no transpose of bytes.
            image = image.float().permute(0, 3, 1, 2) / 255
        if self.preprocess != "none":
            image = (image - self.pixel_mean) / self.pixel_std
        return self.head.forward(self.model, image)
