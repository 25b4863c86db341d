"""A traced model whose scans have no gate and differ in size, tokens and direction."""

from __future__ import annotations

import onnxruntime
import torch
from torch import Tensor, nn

from vim_deploy.graph.tidy import tidy
from vim_deploy.graph.trace import trace_classifier
from vim_deploy.model.scan import selective_scan_op
from vim_deploy.ops.functions import attach_functions, nodes_of
from vim_deploy.ops.single_calls import scan_lengths

#: Of logits of at most 1; measured 3e-8.
BOUND = 1e-6


class Scan(nn.Module):
    """Tokens [B, L, D] to the same, with three states."""

    def __init__(self, width: int, rank: int, reverse: bool) -> None:
        super().__init__()
        self.rows, self.rank, self.reverse = nn.Linear(width, rank + 6), rank, reverse
        self.rate = nn.Parameter(-torch.rand(3, width))
        self.bias = nn.Parameter(torch.rand(width))

    def forward(self, u: Tensor) -> Tensor:
        given = (u, u, self.rate, self.rows(u), self.bias, self.bias, u.new_empty(0))
        found: Tensor = selective_scan_op(
            *given, self.reverse, True, self.rank, self.rank + 3, 0, False
        )
        return found


class Levels(nn.Module):
    """Windows of 16 tokens, then all 24 of half the size."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 12, 2, 2)
        self.scans = nn.ModuleList([Scan(8, 2, reverse=False), Scan(12, 4, reverse=True)])

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        windows = x.unflatten(2, (2, 4)).unflatten(4, (3, 4)).permute(0, 2, 4, 3, 5, 1)
        tokens = self.scans[0](windows.reshape(-1, 16, 8)).reshape(-1, 2, 3, 4, 4, 8)
        x = tokens.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        logits: Tensor = self.scans[1](self.second(x).flatten(2).transpose(1, 2)).mean(1)
        return logits


def test_it_is_traced_without_gates_and_runs_in_both_forms() -> None:
    torch.manual_seed(0)
    module = Levels().eval()
    model = tidy(trace_classifier(module, (32, 48)))
    assert [len(node.input) for node in nodes_of(model.graph)] == [6, 6]
    assert scan_lengths(model) == (16, 24)
    image = torch.randn(3, 3, 32, 48)
    with torch.no_grad():
        expected = module(image).numpy()
    for tokens in (None, scan_lengths(model)):
        attach_functions(model, tokens)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        (found,) = session.run(None, {"image": image.numpy()})
        assert abs(found - expected).max() <= BOUND
