"""A stand-in for exported detectors: their inputs, outputs and description, around a few nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

import vim_deploy
from tests.support.reference import Array
from vim_deploy.artifact import metadata
from vim_deploy.artifact.metadata import PRODUCER, ExportInfo
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.recipe.dense_config import DenseConfig, PyramidConfig
from vim_deploy.recipe.detector_config import DetectorConfig, MaskHeadConfig
from vim_deploy.specs import CheckpointInfo, ImagePreparation, PreprocessMode

#: Side of a mask, as the official mask head gives it.
MASK = 28

#: Of each picture only what lies inside its size counts. Row r of ``scores`` is ``falling[r]``
#: times the sigmoid of its mean, ``boxes`` are ``places[r]`` times the size, and the mean is added
#: to the logits of the masks; all of it is zero in rows from ``count`` on.
_GRAPH = """
detector (float[{batch},3,{size},{size}] image, int64[{batch},2] size)
    => (float[{batch},{rows},4] boxes, float[{batch},{rows}] scores, int64[{batch},{rows}] classes,
        {masks_output}int64[{batch}] count) {{
    zero = Constant <value = float {{0}}> ()
    none = Constant <value = int64 {{0}}> ()
    one_axis = Constant <value = int64[1] {{1}}> ()
    last_axis = Constant <value = int64[1] {{-1}}> ()
    last_axes = Constant <value = int64[2] {{2, 3}}> ()
    all_axes = Constant <value = int64[3] {{1, 2, 3}}> ()
    height, width = Split <axis = 1, num_outputs = 2> (size)
    row_inside = Less (pixels, height)
    column_inside = Less (pixels, width)
    rows_inside = Unsqueeze (row_inside, last_axis)
    columns_inside = Unsqueeze (column_inside, one_axis)
    inside = And (rows_inside, columns_inside)
    inside_channels = Unsqueeze (inside, one_axis)
    picture = Where (inside_channels, image, zero)
    mean = ReduceMean <keepdims = 0> (picture, all_axes)
    mean_column = Unsqueeze (mean, one_axis)
    shorter = ReduceMin <keepdims = 1> (size, one_axis)
    is_picture = Greater (shorter, none)
    found = And (is_picture, filled)
    found_boxes = Unsqueeze (found, last_axis)
    share = Sigmoid (mean_column)
    all_scores = Mul (falling, share)
    scores = Where (found, all_scores, zero)
    corner = Concat <axis = 1> (width, height, width, height)
    corner_float = Cast <to = 1> (corner)
    extent = Unsqueeze (corner_float, one_axis)
    all_boxes = Mul (places, extent)
    boxes = Where (found_boxes, all_boxes, zero)
    classes = Where (found, numbers, none)
    found_number = Cast <to = 7> (found)
    count = ReduceSum <keepdims = 0> (found_number, one_axis)
    {masks_nodes}
}}
"""
_MASKS = """
    mean_map = Unsqueeze (mean_column, last_axes)
    mask_logits = Add (shapes, mean_map)
    all_masks = Sigmoid (mask_logits)
    found_masks = Unsqueeze (found, last_axes)
    masks = Where (found_masks, all_masks, zero)
"""


def detections_of(rows: int) -> int:
    """How many rows of a stand-in's outputs are filled: all but one, so that padding is seen."""
    return max(rows - 1, 1)


def graph(
    size: int = 64, classes: int = 3, rows: int = 5, *, masks: bool = True, batch: int | None = None
) -> onnx.ModelProto:
    """The stand-in's graph, without a description: inputs ``image`` and ``size``, five outputs.

    Args:
        size: of the square input, in pixels.
        classes: row r is of class ``r % classes``.
        rows: N of the outputs.
        masks: whether there is an output ``masks``.
        batch: None for a dynamic one.
    """
    free = "batch" if batch is None else batch
    text = _GRAPH.format(
        batch=free,
        size=size,
        rows=rows,
        masks_output=f"float[{free},{rows},{MASK},{MASK}] masks, " if masks else "",
        masks_nodes=_MASKS if masks else "",
    )
    model = helper.make_model(
        parser.parse_graph(text),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
        producer_name=PRODUCER,
    )
    constants = _constants(size, classes, rows)
    if not masks:
        del constants["shapes"]
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _constants(size: int, classes: int, rows: int) -> dict[str, Array]:
    random = np.random.default_rng(0)
    corners = np.sort(random.uniform(0.05, 0.95, (rows, 2, 2)), axis=1)
    # At least a tenth of the picture wide and high.
    corners[:, 1] = np.maximum(corners[:, 1], corners[:, 0] + 0.1)
    grid = np.linspace(-1, 1, MASK)
    radius = np.hypot(grid[:, None], grid[None])
    sizes = random.uniform(0.5, 1.0, rows)
    return {
        "pixels": np.arange(size)[None],
        "falling": np.linspace(0.95, 0.5, rows).astype(np.float32),
        "places": corners.reshape(rows, 4).astype(np.float32),
        "numbers": np.arange(rows) % classes,
        "filled": np.arange(rows) < detections_of(rows),
        "shapes": (8 * (sizes[:, None, None] - radius)).astype(np.float32),
    }


def described(
    size: int = 64,
    classes: int = 3,
    rows: int = 5,
    *,
    masks: bool = True,
    preprocess: PreprocessMode = "none",
) -> ExportInfo:
    """What an exported detector with such a graph says of itself; classes are ``thing 0``, ..."""
    detector = DetectorConfig(
        num_classes=classes, detections=rows, mask_head=MaskHeadConfig() if masks else None
    )
    config = VimConfig(
        img_size=size, depth=1, embed_dim=8, d_state=2, num_classes=0, if_cls_token=False
    )
    return ExportInfo(
        model="stand-in",
        model_config=config,
        checkpoint=CheckpointInfo("seed:0", "", "seeded"),
        image=ImagePreparation(size, size, crop_ratio=1.0, interpolation="bilinear"),
        preprocess=preprocess,
        head="detections",
        graph="base",
        precision="fp32",
        opset=18,
        pos_embed="",
        tool_version=vim_deploy.__version__,
        settings_hash="",
        labels=tuple(f"thing {index}" for index in range(classes)),
        dense=DenseConfig(
            "detection", (0,), pyramid=PyramidConfig(out_channels=8), detector=detector
        ),
    )


def stand_in(
    path: Path,
    size: int = 64,
    classes: int = 3,
    rows: int = 5,
    masks: bool = True,
    batch: int | None = None,
    info: ExportInfo | None = None,
) -> Path:
    """Write ``graph`` with its description; the path.

    Args:
        path: of the ONNX file.
        size, classes, rows, masks, batch: as of ``graph``.
        info: another description than ``described`` gives; its image may have other numbers, as
            long as the graph is given floats.
    """
    model = graph(size, classes, rows, masks=masks, batch=batch)
    metadata.attach(model, info or described(size, classes, rows, masks=masks))
    onnx.save(model, path)
    return path


def boxes_in(height: int, width: int, count: int) -> Array:
    """Boxes of every kind: large, a pixel wide, a thousandth of one, at the borders."""
    random = np.random.default_rng(count)
    corners = np.sort(random.uniform(0, 1, (count, 2, 2)), axis=1) * (width, height)
    corners[::5, 1] = corners[::5, 0] + 1e-3
    corners[1::5] = np.round(corners[1::5])
    corners[2::5, 0], corners[3::5, 1] = 0, (width, height)
    corners[1::5, 1] = np.maximum(corners[1::5, 1], corners[1::5, 0] + 1)
    return corners.reshape(count, 4).astype(np.float32)
