"""Keeping what a module computes inside, by place, for the runs that follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from vim_deploy.places import Place


def _all_of(output: Any) -> Tensor:  # noqa: ANN401 - what a module gives
    tensor: Tensor = output
    return tensor


@dataclass
class Watch:
    """Hooks on modules, and what they kept.

    Attributes:
        found: float32 tensors by place, the first that was computed there.
        handles: of the hooks; ``remove`` takes them off.
    """

    found: dict[Place, Tensor] = field(default_factory=dict)
    handles: list[Any] = field(default_factory=list)

    def keep(
        self, where: Place, module: nn.Module, pick: Callable[[Any], Tensor] = _all_of
    ) -> None:
        """Keep what ``module`` gives, or what ``pick`` takes of that."""

        def hook(_module: nn.Module, _arguments: object, output: Any) -> None:  # noqa: ANN401
            self.found.setdefault(where, pick(output).detach().float())

        self.handles.append(module.register_forward_hook(hook))

    def keep_input(self, where: Place, module: nn.Module) -> None:
        """Keep the first argument of ``module``."""

        def hook(_module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            self.found.setdefault(where, arguments[0].detach().float())

        self.handles.append(module.register_forward_pre_hook(hook))

    def remove(self) -> None:
        """Take the hooks off their modules."""
        for handle in self.handles:
            handle.remove()
