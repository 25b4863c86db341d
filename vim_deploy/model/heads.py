"""What stands around the model in an exported graph: image preparation in front, head behind."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.model.dense.heads import default_dense_head, dense_outputs, parse_dense_head
from vim_deploy.model.head_spec import Head
from vim_deploy.model.network import Network
from vim_deploy.model.vim import VisionMamba
from vim_deploy.ranges import COUNT, shown
from vim_deploy.recipe.dense_config import DenseConfig
from vim_deploy.recipe.model_config import ModelConfig
from vim_deploy.specs import ImagePreparation

PREPROCESS_MODES = ("none", "normalize", "uint8")
HEADS = ("logits", "softmax", "topk:K", "features", "tokens")


def default_head(dense: DenseConfig | None) -> str:
    """The head of an export that names none: logits, or features where there are no classes."""
    return "logits" if dense is None else default_dense_head(dense)


def parse_head(text: str, config: ModelConfig, dense: DenseConfig | None = None) -> Head:
    """Read ``logits``, ``softmax``, ``topk:K``, ``features`` or ``tokens`` for this model.

    ``features`` are what the head of a classifier reads, [B, D] with a class token or pooling;
    ``tokens`` are all of the last norm's outputs, [B, L, D]. ``parse_dense_head`` says what a
    dense model gives.

    Raises:
        VimDeployError: VIM-202 for an unknown head or K, VIM-203 when the model has no classes
            on its last axis to take a softmax or the best K of.
    """
    if dense is not None:
        return parse_dense_head(text, dense)
    kind, _, count = text.partition(":")
    if kind in ("logits", "softmax", "features", "tokens") and not count:
        head = Head(kind)
    elif kind == "topk":
        head = Head(kind, _count(text, count))
    else:
        raise VimDeployError(
            "VIM-202", f"--head {shown(text)} is not valid", fix=nearest(kind, HEADS)
        )
    if kind in ("softmax", "topk"):
        without_classes = config.num_classes == 0 or (
            config.if_cls_token and config.final_pool_type == "max"
        )
        if without_classes:
            raise VimDeployError(
                "VIM-203",
                f"--head {text} needs class scores, and this model's output has none",
                why="it has no head (num_classes 0) or takes a maximum over the classes",
                fix="--head logits or --head features",
            )
        if head.count > config.num_classes:
            raise VimDeployError(
                "VIM-202",
                f"--head {text}: the model has {config.num_classes} classes",
                fix=f"--head topk:{config.num_classes} or fewer",
            )
    return head


def _count(text: str, count: str) -> int:
    """K of ``topk:K``."""
    try:
        return COUNT.parse(count)
    except ValueError as error:
        raise VimDeployError(
            "VIM-202", f"--head {shown(text)} is not valid", why=str(error), fix="--head topk:5"
        ) from error


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
        """The head's outputs; ``topk`` gives probabilities [.., K] and class indices int64."""
        if self.preprocess == "uint8":
            # Float first: TensorRT-RTX has no transpose of bytes.
            image = image.float().permute(0, 3, 1, 2) / 255
        if self.preprocess != "none":
            image = (image - self.pixel_mean) / self.pixel_std
        if self.model.dense is not None:
            return dense_outputs(self.model, image, self.head)
        assert isinstance(self.model, VisionMamba)
        if self.head.kind == "tokens":
            return self.model.last_tokens(image)
        result: Tensor = self.model(image, self.head.kind == "features")
        if self.head.kind in ("softmax", "topk"):
            result = result.softmax(dim=-1)
        if self.head.kind == "topk":
            values, classes = result.topk(self.head.count, dim=-1)
            return values, classes
        return result
