"""Configurations: rendered from typed fields, parsed back with Triton's own schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.packages import bytes_classifier, classifier, engine
from vim_deploy.errors import VimDeployError
from vim_deploy.packaging.check import parse_model_config
from vim_deploy.packaging.repository import Map, ServingOptions, model_config, render
from vim_deploy.packaging.servable import read_servable
from vim_deploy.specs import TensorSpec

pytest.importorskip("tritonclient.grpc", reason="needs pip install 'vim-deploy[triton]'")


def parsed(path: Path, **options: Any) -> Any:
    """The message of an artifact's configuration."""
    return parse_model_config(render(model_config(read_servable(path), ServingOptions(**options))))


def enum(message: Any, field: str) -> str:
    """The name of an enum field's value."""
    kind = message.DESCRIPTOR.fields_by_name[field].enum_type
    return str(kind.values_by_number[getattr(message, field)].name)


def test_engine(tmp_path: Path) -> None:
    config = parsed(engine(tmp_path), name="vim", queue_delay_us=100)
    assert (config.name, config.platform, config.backend) == ("vim", "tensorrt_plan", "tensorrt")
    assert config.max_batch_size == 4
    (image,), (logits,) = config.input, config.output
    assert (image.name, enum(image, "data_type"), list(image.dims)) == (
        "image",
        "TYPE_FP32",
        [1, 2, 3],
    )
    assert (logits.name, list(logits.dims), logits.label_filename) == ("logits", [4], "labels.txt")
    (group,) = config.instance_group
    assert (group.count, enum(group, "kind"), list(group.profile)) == (1, "KIND_GPU", [])
    assert list(config.dynamic_batching.preferred_batch_size) == [2, 4]
    assert config.dynamic_batching.max_queue_delay_microseconds == 100
    assert [item.batch_size for item in config.model_warmup] == [1, 2, 4]
    assert list(config.model_warmup[0].inputs["image"].dims) == [1, 2, 3]
    assert config.default_model_filename == "model.plan"
    assert not config.HasField("optimization")


def test_several_profiles_and_cuda_graphs(tmp_path: Path) -> None:
    path = engine(tmp_path, profiles=((1, 1, 1), (2, 4, 8)))
    config = parsed(path, cuda_graphs=True, instances=2)
    assert list(config.instance_group[0].profile) == ["0", "1"]
    assert config.instance_group[0].count == 2
    cuda = config.optimization.cuda
    assert cuda.graphs
    assert [spec.batch_size for spec in cuda.graph_spec] == [1, 2, 4, 8]
    assert list(cuda.graph_spec[0].input["image"].dim) == [1, 2, 3]


def test_onnx_in_both_runtimes(tmp_path: Path) -> None:
    path = classifier(tmp_path / "toy.onnx")
    config = parsed(path)
    assert (config.platform, config.backend, config.name) == (
        "onnxruntime_onnx",
        "onnxruntime",
        "toy",
    )
    assert config.max_batch_size == 32
    config = parsed(path, runtime="python", max_batch=6, threads=3, dynamic_batching=False)
    assert (config.platform, config.backend, config.max_batch_size) == ("", "python", 6)
    assert enum(config.instance_group[0], "kind") == "KIND_CPU"
    assert config.parameters["THREADS"].string_value == "3"
    assert not config.HasField("dynamic_batching")
    assert config.default_model_filename == "model.py"


def test_bytes(tmp_path: Path) -> None:
    config = parsed(bytes_classifier(tmp_path / "m.onnx"))
    assert enum(config.input[0], "data_type") == "TYPE_UINT8"
    assert list(config.input[0].dims) == [2, 3, 1]


def test_a_fixed_batch_stays_in_the_dims(tmp_path: Path) -> None:
    config = parsed(classifier(tmp_path / "m.onnx", 2))
    assert config.max_batch_size == 0
    assert (list(config.input[0].dims), list(config.output[0].dims)) == ([2, 1, 2, 3], [2, 4])
    assert not config.HasField("dynamic_batching")
    assert [item.batch_size for item in config.model_warmup] == [1]


def test_text_is_escaped() -> None:
    # What a name may hold is checked elsewhere; the renderer is right for any text.
    text = 'quote " backslash \\ line\nbreak \x01 é'
    message = parse_model_config(render_parameter(text))
    assert message.parameters["KEY"].string_value == text


def render_parameter(text: str) -> str:
    return render(
        {"name": "m", "backend": "python", "parameters": Map({"KEY": {"string_value": text}})}
    )


def test_the_schema_refuses_what_it_does_not_know() -> None:
    with pytest.raises(VimDeployError) as caught:
        parse_model_config("max_batch_sise: 3")
    assert caught.value.code == "VIM-428"
    assert "max_batch_sise" in caught.value.why


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ({"max_batch": 5}, "VIM-905", "does not take a batch of 5"),
        ({"runtime": "python"}, "VIM-203", "does not serve model.plan"),
        ({"name": "a/b"}, "VIM-202", "not a name"),
        ({"name": ".."}, "VIM-202", "not a name"),
        ({"name": 'x"'}, "VIM-202", "not a name"),
    ],
)
def test_refused_for_an_engine(
    tmp_path: Path, options: dict[str, Any], code: str, said: str
) -> None:
    with pytest.raises(VimDeployError, match=said) as caught:
        parsed(engine(tmp_path), **options)
    assert caught.value.code == code


def test_batches_between_the_profiles(tmp_path: Path) -> None:
    path = engine(tmp_path, profiles=((1, 1, 1), (4, 4, 6)))
    with pytest.raises(VimDeployError, match="takes no batch of 2 to 3") as caught:
        parsed(path)
    assert caught.value.code == "VIM-905"
    assert parsed(path, dynamic_batching=False).max_batch_size == 6
    assert parsed(path, max_batch=1).max_batch_size == 1


def test_profiles_of_any_length_are_compared_by_their_ends(tmp_path: Path) -> None:
    most = 2**31 - 1
    gaps = engine(tmp_path, profiles=((5, 5, 9), (1, 1, 3), (20, 30, most)))
    with pytest.raises(VimDeployError, match="takes no batch of 4, 10 to 19"):
        parsed(gaps)
    assert parsed(gaps, max_batch=3).max_batch_size == 3
    whole = engine(tmp_path, profiles=((1, 1, most), (2, 2, 3), (most, most, most)))
    assert parsed(whole).max_batch_size == most


def test_gaps_are_found_without_counting_through_them(tmp_path: Path) -> None:
    far = ((1, 1, 2), (3, 3, 3), (5, 5, 5), (2_000_000_000, 2_000_000_000, 2_000_000_000))
    path = engine(tmp_path, profiles=far)
    with pytest.raises(VimDeployError, match="takes no batch of 4, 6 to 1999999999"):
        parsed(path)
    overlapping = ((1, 2, 9), (2, 3, 4), (8, 9, 12))
    assert parsed(engine(tmp_path, profiles=overlapping)).max_batch_size == 12


@pytest.mark.parametrize("kind", ["operators", "tensors"])
def test_bfloat16_is_refused(tmp_path: Path, kind: str) -> None:
    import onnx

    path = classifier(tmp_path / "m.onnx")
    model = onnx.load(path)
    if kind == "tensors":
        # Of an engine: ONNX files are refused by their operators before.
        path = engine(tmp_path, inputs=(TensorSpec("image", "bfloat16", ("batch", 1, 2, 3)),))
    else:
        weight = model.graph.initializer[0]
        weight.name = "full"
        half = onnx.TensorProto.BFLOAT16
        nodes = [
            onnx.helper.make_node("Cast", ["full"], ["half"], to=half),
            onnx.helper.make_node("Cast", ["half"], ["w"], to=onnx.TensorProto.FLOAT),
            *model.graph.node,
        ]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        onnx.save(model, path)
    with pytest.raises(VimDeployError) as caught:
        parsed(path)
    assert caught.value.code == "VIM-426"
    assert "bfloat16" in f"{caught.value.message} {caught.value.why}"


@pytest.mark.parametrize(
    ("batch", "options", "code", "said"),
    [
        ("batch", {"runtime": "tensorrt"}, "VIM-203", "does not serve"),
        ("batch", {"cuda_graphs": True}, "VIM-203", "is for engines"),
        (2, {"max_batch": 4}, "VIM-203", "whose batch is fixed"),
    ],
)
def test_refused_for_onnx(
    tmp_path: Path, batch: int | str, options: dict[str, Any], code: str, said: str
) -> None:
    with pytest.raises(VimDeployError, match=said) as caught:
        parsed(classifier(tmp_path / "m.onnx", batch), **options)
    assert caught.value.code == code
