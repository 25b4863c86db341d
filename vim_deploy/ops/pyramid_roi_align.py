"""``VimPyramidRoiAlign``: RoIAlign on that level of a feature pyramid which fits each box.

Inputs, all float32: p2, p3, p4, p5 [B,C,H,W], each level half as large as the one before, boxes
[B,N,4] as x1, y1, x2, y2 in pixels of the network; output: pooled [B*N,C,o,o] with o =
``output_size``. A cell of p2 is 1 / ``spatial_scale`` pixels wide, and p2 at least 4 cells. The
level of a box is::

    floor(4 + log2(sqrt(area) / canonical_size + 1e-8)), at least 2 and at most 5

Source: Feature Pyramid Networks, arXiv 1612.03144, equation 1. There RoIAlign, Mask R-CNN, arXiv
1703.06870, section 3: the box less half a cell is cut into o x o bins; a bin is the average of
ceil(its length) samples along each side, bilinear between cells, edge cells continued for one cell,
0 beyond. A box without width or height is 0. Maps are finite.
"""

from __future__ import annotations

import numpy as np

from vim_deploy.ops.op import PLAIN, Array, Facts, Kind, Op, Part, each

#: Pieces into which the columns of each level are cut in the form without RoiAlign, so that its
#: largest tensor is as large on p2 as on p4.
_PIECES = {"2": 4, "3": 2, "4": 1, "5": 1}
_LEVELS = tuple(_PIECES)
#: From which sqrt(area) / canonical_size on a level is taken: a half, one and two, less what
#: float32 rounds away when it evaluates the formula. So both agree to the last bit.
FROM = {"from_3": 0.5 - 2**-24, "from_4": 1.0 - 2**-24, "from_5": 2.0 - 3 * 2**-23}

#: Corners [R,1] of the boxes of all images, R = B N, and which are on which level.
_BOXES = """
    axis_1 = Constant <value = int64[1] {1}> ()
    axes_23 = Constant <value = int64[2] {2, 3}> ()
    zero = Constant <value = float {0}> ()
    half = Constant <value = float {0.5}> ()
    first = Constant <value = int64 {0}> ()
    step = Constant <value = int64 {1}> ()
    row_shape = Constant <value = int64[2] {-1, 4}> ()
    rows = Reshape (boxes, row_shape)
    corner_sizes = Constant <value = int64[4] {1, 1, 1, 1}> ()
    x1, y1, x2, y2 = Split <axis = 1> (rows, corner_sizes)
    width_signed = Sub (x2, x1)
    width = Relu (width_signed)
    height_signed = Sub (y2, y1)
    height = Relu (height_signed)
    area = Mul (width, height)
    size = Sqrt (area)
    canonical = Constant <value = float {$canonical_size}> ()
    relative_size = Div (size, canonical)
    from_3 = Constant <value = float {$from_3}> ()
    from_4 = Constant <value = float {$from_4}> ()
    from_5 = Constant <value = float {$from_5}> ()
    reaches_3 = GreaterOrEqual (relative_size, from_3)
    reaches_4 = GreaterOrEqual (relative_size, from_4)
    is_on_5 = GreaterOrEqual (relative_size, from_5)
    is_on_2 = Not (reaches_3)
    below_4 = Not (reaches_4)
    is_on_3 = And (reaches_3, below_4)
    below_5 = Not (is_on_5)
    is_on_4 = And (reaches_4, below_5)"""

#: The boxes in cells of a level, and which of them are pooled there [R,1]: what has no length in
#: float32 after the shift has no samples.
_ON_LEVEL = """
    scale_% = Constant <value = float {$scale_%}> ()
    cells_% = Mul (rows, scale_%)
    shifted_% = Sub (cells_%, half)
    start_x%, start_y%, end_x%, end_y% = Split <axis = 1> (shifted_%, corner_sizes)
    has_width_% = Greater (end_x%, start_x%)
    has_height_% = Greater (end_y%, start_y%)
    has_area_% = And (has_width_%, has_height_%)
    is_pooled_% = And (has_area_%, is_on_%)"""

_IMAGE_OF_ROW = """
    images = Shape <start = 0, end = 1> (boxes)
    axis_0 = Constant <value = int64[1] {0}> ()
    image_count = Squeeze (images, axis_0)
    image_numbers = Range (first, image_count, step)
    image_column = Unsqueeze (image_numbers, axis_1)
    box_shape = Shape <start = 0, end = 2> (boxes)
    image_of_box = Expand (image_column, box_shape)
    minus_1 = Constant <value = int64[1] {-1}> ()
    image_of_row = Reshape (image_of_box, minus_1)
    stand_in = Constant <value = float[1,4] {0, 0, 1, 1}> ()"""

#: A box of another level, or without area, is one of a pixel, which costs a sample a bin; its
#: result is not taken. It must have an area: TensorRT's kernel divides by the number of samples.
_BY_OPERATOR = """
    rois_% = Where (is_pooled_%, rows, stand_in)
    aligned_% = RoiAlign <
        coordinate_transformation_mode = "half_pixel", mode = "avg",
        output_height: int = @output_size, output_width: int = @output_size,
        sampling_ratio = 0, spatial_scale = $scale_%
    > (p%, rois_%, image_of_row)
    is_taken_% = Unsqueeze (is_pooled_%, axes_23)"""
_TAKEN = """
    pooled_2 = Where (is_taken_2, aligned_2, zero)
    pooled_3 = Where (is_taken_3, aligned_3, pooled_2)
    pooled_4 = Where (is_taken_4, aligned_4, pooled_3)
    pooled = Where (is_taken_5, aligned_5, pooled_4)"""

_BINS = """
    axis_2 = Constant <value = int64[1] {2}> ()
    axis_3 = Constant <value = int64[1] {3}> ()
    one = Constant <value = float {1}> ()
    minus_one = Constant <value = float {-1}> ()
    smallest = Constant <value = float {1e-20}> ()
    five = Constant <value = float[5] {0, 1, 2, 3, 4}> ()
    minus_1 = Constant <value = int64[1] {-1}> ()
    same = Constant <value = int64[1] {0}> ()
    images = Shape <start = 0, end = 1> (boxes)
    channels = Shape <start = 1, end = 2> (p2)
    bins_int = Constant <value_int: int = @output_size> ()
    bins = Cast <to = 1> (bins_int)
    bins_1d = Unsqueeze (bins_int, same)
    bin_numbers_int = Range (first, bins_int, step)
    bin_number = Cast <to = 1> (bin_numbers_int)
    bin_channels = Mul (bins_1d, channels)"""

#: How much of each cell along an axis, y or x, is in each bin: weights [R,o,S] of a level with S
#: cells. RoIAlign is separable: the average of a bin's samples is that along y of those along x. A
#: sample takes max(0, 1 - distance) of a cell. Where there are several, they are more than half a
#: cell apart, so at most five can be within a cell of one, and the first of these is computed.
_WEIGHTS = """
    length_~ = Sub (end_~, start_~)
    bin_~ = Div (length_~, bins)
    samples_~ = Ceil (bin_~)
    divisor_~ = Max (samples_~, one)
    bin_offset_~ = Mul (bin_number, bin_~)
    bin_start_~ = Add (start_~, bin_offset_~)
    bin_start_4d_~ = Unsqueeze (bin_start_~, axes_23)
    bin_4d_~ = Unsqueeze (bin_~, axes_23)
    samples_4d_~ = Unsqueeze (samples_~, axes_23)
    divisor_4d_~ = Unsqueeze (divisor_~, axes_23)
    divisor_3d_~ = Unsqueeze (divisor_~, axis_2)
    cell_count_~ = Squeeze (cell_count_1d_~, same)
    cell_numbers_int_~ = Range (first, cell_count_~, step)
    cell_numbers_~ = Cast <to = 1> (cell_numbers_int_~)
    cell_~ = Unsqueeze (cell_numbers_~, axis_1)
    end_of_cells_~ = Cast <to = 1> (cell_count_~)
    last_cell_~ = Sub (end_of_cells_~, one)
    cell_before_~ = Sub (cell_~, one)
    pitch_or_0_~ = Div (bin_4d_~, divisor_4d_~)
    pitch_~ = Max (pitch_or_0_~, smallest)
    distance_in_bin_~ = Sub (cell_before_~, bin_start_4d_~)
    first_sample_real_~ = Div (distance_in_bin_~, pitch_~)
    first_sample_signed_~ = Floor (first_sample_real_~)
    first_sample_~ = Relu (first_sample_signed_~)
    sample_~ = Add (first_sample_~, five)
    is_sample_~ = Less (sample_~, samples_4d_~)
    sample_middle_~ = Add (sample_~, half)
    sample_in_bins_~ = Mul (sample_middle_~, bin_4d_~)
    sample_in_bin_~ = Div (sample_in_bins_~, divisor_4d_~)
    at_~ = Add (bin_start_4d_~, sample_in_bin_~)
    is_after_~ = GreaterOrEqual (at_~, minus_one)
    is_before_~ = LessOrEqual (at_~, end_of_cells_~)
    is_inside_~ = And (is_after_~, is_before_~)
    counts_~ = And (is_inside_~, is_sample_~)
    at_or_first_~ = Max (at_~, zero)
    at_cell_~ = Min (at_or_first_~, last_cell_~)
    offset_~ = Sub (at_cell_~, cell_~)
    distance_~ = Abs (offset_~)
    share_signed_~ = Sub (one, distance_~)
    share_of_any_~ = Relu (share_signed_~)
    share_~ = Where (counts_~, share_of_any_~, zero)
    shares_~ = ReduceSum <keepdims = 0> (share_~, axis_3)
    average_~ = Div (shares_~, divisor_3d_~)
    weights_~ = Where (is_pooled_3d_$level, average_~, zero)"""


def _weights(level: str) -> str:
    """Text of the weights of a level along both axes."""
    return each(_WEIGHTS.replace("$level", level), (f"y{level}", f"x{level}"), "~")


_SIZES = """
    is_pooled_3d_% = Unsqueeze (is_pooled_%, axis_2)
    cell_count_1d_y% = Shape <start = 2, end = 3> (p%)
    cell_count_1d_x% = Shape <start = 3, end = 4> (p%)"""
_ROWS_OF_LEVEL = """
    row_weight_shape_% = Concat <axis = 0> (images, minus_1, cell_count_1d_y%)
    row_weights_of_image_% = Reshape (weights_y%, row_weight_shape_%)"""

#: A piece of the columns of a level, from a bound to the next, and their weights.
_PIECE = """
    pieces_% = Constant <value = int64[1] {$pieces}> ()
    piece_% = Constant <value = int64[1] {$number}> ()
    columns_times_% = Mul (cell_count_1d_x$level, piece_%)
    bound_% = Div (columns_times_%, pieces_%)
    column_count_% = Sub (bound_%, $start)
    columns_% = Slice (p$level, $start, bound_%, axis_3)
    column_weights_% = Slice (weights_x$level, $start, bound_%, axis_2)"""

#: What columns give to all bins, [R,o C,o]: weights along y, the map, weights along x.
_PRODUCTS = """
    columns_turned_% = Transpose <perm = [0, 2, 1, 3]> ($columns)
    columns_flat_% = Reshape (columns_turned_%, flat_shape)
    bands_of_image_% = MatMul (row_weights_of_image_$level, columns_flat_%)
    band_shape_% = Concat <axis = 0> (minus_1, bin_channels, $column_count)
    bands_% = Reshape (bands_of_image_%, band_shape_%)
    column_weights_turned_% = Transpose <perm = [0, 2, 1]> ($column_weights)
    part_% = MatMul (bands_%, column_weights_turned_%)"""


def _part(level: str, number: int, pieces: int) -> str:
    """Text of ``part_LEVEL_NUMBER``: what a piece of a level gives; one piece is the level."""
    suffix = f"{level}_{number}"
    words = {
        "$level": level,
        "$number": str(number),
        "$pieces": str(pieces),
        "$start": f"bound_{level}_{number - 1}" if number > 1 else "same",
        "$columns": f"columns_{suffix}" if pieces > 1 else f"p{level}",
        "$column_count": f"column_count_{suffix}" if pieces > 1 else f"cell_count_1d_x{level}",
        "$column_weights": f"column_weights_{suffix}" if pieces > 1 else f"weights_x{level}",
    }
    text = (_PIECE if pieces > 1 else "") + _PRODUCTS
    for word in sorted(words, key=len, reverse=True):
        text = text.replace(word, words[word])
    return each(text, (suffix,))


def _by_products() -> str:
    """Text of ``pooled``: the sum of all parts."""
    parts = [(level, number) for level in _LEVELS for number in range(1, _PIECES[level] + 1)]
    text = "\n    flat_shape = Constant <value = int64[3] {0, 0, -1}> ()"
    total = ""
    for level, number in parts:
        text += _part(level, number, _PIECES[level])
        part = f"{level}_{number}"
        if total:
            text += f"\n    sum_{part} = Add ({total}, part_{part})"
        total = f"sum_{part}" if total else f"part_{part}"
    return f"""{text}
    by_bin_shape = Concat <axis = 0> (minus_1, bins_1d, channels, bins_1d)
    by_bin = Reshape ({total}, by_bin_shape)
    pooled = Transpose <perm = [0, 2, 1, 3]> (by_bin)"""


def pyramid_roi_align(
    p2: Array,
    p3: Array,
    p4: Array,
    p5: Array,
    boxes: Array,
    *,
    output_size: int,
    canonical_size: float,
    spatial_scale: float,
) -> Array:
    """The op in float64, pooled [B*N,C,o,o]; shapes as above."""
    images, count = boxes.shape[:2]
    pooled = np.zeros((images * count, p2.shape[1], output_size, output_size))
    for row, box in enumerate(boxes.reshape(-1, 4)):
        sides = box[2:] - box[:2]
        if not (sides > 0).all():
            continue
        size = np.sqrt(sides.prod()) / canonical_size
        level = int(np.clip(np.floor(4.0 + np.log2(size + 1e-8)), 2, 5)) - 2
        cells = (p2, p3, p4, p5)[level][row // count]
        x1, y1, x2, y2 = box * spatial_scale / 2**level - 0.5
        along_y, along_x = (
            _axis_weights(start, end, output_size, length)
            for start, end, length in ((y1, y2, cells.shape[1]), (x1, x2, cells.shape[2]))
        )
        pooled[row] = along_y @ cells @ along_x.T
    return pooled


def _axis_weights(start: float, end: float, bins: int, length: int) -> Array:
    """What the average of each bin takes of each cell, [bins, length], sample by sample."""
    weights = np.zeros((bins, length))
    samples = int(np.ceil((end - start) / bins))
    for number in range(bins):
        for sample in range(samples):
            at = start + (number + (sample + 0.5) / samples) * (end - start) / bins
            if not -1.0 <= at <= length:
                continue
            at = min(max(at, 0.0), length - 1.0)
            low = int(at)
            weights[number, low] += (1.0 - (at - low)) / samples
            if low + 1 < length:
                weights[number, low + 1] += (at - low) / samples
    return weights


def _derived(facts: Facts) -> dict[str, object]:
    """The cells of each level in a pixel, and where levels begin."""
    scales = {f"scale_{k}": facts["spatial_scale"] / 2**i for i, k in enumerate(_LEVELS)}
    return scales | {name: f"{value:.17g}" for name, value in FROM.items()}


PYRAMID_ROI_ALIGN = Op(
    name="VimPyramidRoiAlign",
    inputs=("p2", "p3", "p4", "p5", "boxes"),
    outputs=("pooled",),
    attributes={
        "output_size": Kind.COUNT,
        "canonical_size": Kind.NUMBER,
        "spatial_scale": Kind.NUMBER,
    },
    body=(
        Part(_BOXES + each(_ON_LEVEL, _LEVELS)),
        Part(_IMAGE_OF_ROW + each(_BY_OPERATOR, _LEVELS) + _TAKEN, unless=PLAIN),
        Part(_BINS + each(_SIZES, _LEVELS), when=PLAIN),
        Part("".join(_weights(level) for level in _LEVELS), when=PLAIN),
        Part(each(_ROWS_OF_LEVEL, _LEVELS) + _by_products(), when=PLAIN),
    ),
    reference=pyramid_roi_align,
    fp32=("p2", "p3", "p4", "p5", "boxes", "pooled"),
    per_node=("output_size",),
    derived=_derived,
    kernel_sizes=(
        *("batch", "count", "channels"),
        *(f"{side}_{level}" for side in ("height", "width") for level in _LEVELS),
    ),
    plugin=False,
)
