"""The table of heads: names, what each says of its outputs, and what is refused."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from tests.support.models import tiny_config
from vim_deploy import heads
from vim_deploy.cli.main import cli
from vim_deploy.errors import VimDeployError
from vim_deploy.heads.topk import TopK


def test_names_are_told_apart() -> None:
    keys = [(head.name, head.dense) for head in heads.TABLE]
    assert len(keys) == len(set(keys))
    assert all(head.usage.startswith(head.name) for head in heads.TABLE)


def test_help_lists_the_table() -> None:
    # Not by ``main``, after which this process would take no interrupt.
    said = " ".join(CliRunner().invoke(cli, ["export", "--help"]).output.split())
    assert "Output: logits, softmax, topk:K, features or tokens; of a segmentation model" in said
    for head in heads.TABLE:
        assert head.usage in said


@pytest.mark.parametrize("head", heads.TABLE, ids=lambda head: f"{head.__name__}")
def test_a_head_describes_its_outputs(head: type[heads.Head]) -> None:
    assert head.__doc__
    for output in head.gives:
        assert output.axes[0] == "batch"
        assert (output.holds in ("classes", "counts")) == (output.dtype == "int64")
        assert head.kind != "classes" or output.axes == ("batch", "classes")


@pytest.mark.parametrize(
    ("text", "dense", "said"),
    [
        ("logitz", False, "did you mean 'logits'"),
        ("softmax:3", False, "did you mean 'softmax'"),
        ("logits+aux", False, "did you mean 'logits'"),
        ("topk", False, "--head topk:5"),
        ("topk:0", False, "--head topk:5"),
        ("topk:5x", False, "--head topk:5"),
        ("softmax", True, "valid names: detections, features, labels, logits, upsampled"),
        ("logits:3", True, "did you mean 'logits'"),
    ],
)
def test_what_is_no_head(text: str, dense: bool, said: str) -> None:
    with pytest.raises(VimDeployError) as caught:
        heads.find(text, dense=dense)
    assert caught.value.code == "VIM-202"
    assert said in caught.value.fix


def test_the_best_classes() -> None:
    head = heads.parse_head("topk:2", tiny_config(num_classes=4))
    assert isinstance(head, TopK)
    assert (head.count, head.output_names) == (2, ("probabilities", "classes"))
    with pytest.raises(VimDeployError, match="has 4 classes"):
        heads.parse_head("topk:5", tiny_config(num_classes=4))


def test_outputs_by_name() -> None:
    upsampled = heads.find("upsampled", dense=True)
    assert next(heads.outputs_called("logits"))[0].stored_as == ("output",)
    assert next(heads.outputs_called("logits", upsampled))[0].stored_as[0] == "whole_output"
    output, match = next(heads.outputs_called("feature_3"))
    assert [match.expand(name) for name in output.stored_as] == ["output_3"]
    assert next(heads.outputs_called("p6"))[0].holds == "values"
    assert not list(heads.outputs_called("else"))
