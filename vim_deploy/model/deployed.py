"""What stands around the model in an exported graph: image preparation in front, head behind."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.families.base import ModelConfig
from vim_deploy.heads.base import Head
from vim_deploy.model.network import Network
from vim_deploy.specs import ImagePreparation

PREPROCESS_MODES = ("none", "normalize", "uint8")


def example_input(config: ModelConfig, preprocess: str, batch: int) -> Tensor:
    """A tensor of the shape and dtype that an exported graph takes; its values do not matter."""
    height, width = config.image_hw
    if preprocess == "uint8":
        return torch.zeros((batch, height, width, config.channels), dtype=torch.uint8)
    return torch.zeros((batch, config.channels, height, width))


def example_size(config: ModelConfig, batch: int) -> Tensor:
    """Sizes of pictures that fill the input: int64 [batch, 2], height and width."""
    return torch.tensor([config.image_hw] * batch)


class DeployedModel(nn.Module):
    """Preparation, network and head as one module, eager and traced alike.

    Input by ``preprocess``: ``none`` normalised float [B, C, H, W]; ``normalize`` float
    [B, C, H, W] in [0, 1]; ``uint8`` pixels [B, H, W, C]. Where the head ``takes_size``, the height
    and width of the pictures in it as well, int64 [B, 2]: what is around them, does not matter.
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

    def forward(self, image: Tensor, size: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        """The head's outputs, in the order of its names."""
        if self.preprocess == "uint8":
            # Float first: TensorRT-RTX has no transpose of bytes.
            image = image.float().permute(0, 3, 1, 2) / 255
        if self.preprocess != "none":
            image = (image - self.pixel_mean) / self.pixel_std
        if not self.head.takes_size:
            return self.head.forward(self.model, image)
        sides = (example_size(self.model.config, len(image)) if size is None else size).float()
        return self.head.forward(self.model, _within(image, sides), sides)


def _within(image: Tensor, sides: Tensor) -> Tensor:
    """``image`` [B, C, H, W] with zeros below and right of pictures of ``sides`` [B, 2].

    detectron2 pads normalised pictures. Chosen rather than multiplied: NaN times 0 is NaN.
    """
    rows = torch.arange(image.shape[2], dtype=sides.dtype) < sides[:, :1]
    columns = torch.arange(image.shape[3], dtype=sides.dtype) < sides[:, 1:]
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(inside, image, torch.zeros((), dtype=image.dtype))
