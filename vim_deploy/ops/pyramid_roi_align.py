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

#: Pieces into which the columns of each level are cut in the form without RoiAlign, each as wide as
#: p4, so that its largest tensor is as large on p2 as there.
_PIECES = {"2": 4, "3": 2, "4": 1, "5": 1}
_LEVELS = tuple(_PIECES)
#: From which sqrt(area) / canonical_size on a level is taken: a half, one and two, less what
#: float32 rounds away when it evaluates the formula. So both agree to the last bit.
FROM = {"from_3": 0.5 - 2**-24, "from_4": 1.0 - 2**-24, "from_5": 2.0 - 3 * 2**-23}

#: Corners [R,1] of the boxes of all images, R = B N, and which are on which level.
_LEVEL = """
    axis_0 = Constant <value = int64[1] {0}> ()
    axis_1 = Constant <value = int64[1] {1}> ()
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

#: The boxes in cells of their levels, as starts and ends along y and x [R,2], and which of them are
#: pooled [R,1]: what has no length in float32 after the shift has no samples.
_CELLS = """
    scale_2 = Constant <value = float {$scale_2}> ()
    scale_3 = Constant <value = float {$scale_3}> ()
    scale_4 = Constant <value = float {$scale_4}> ()
    scale_5 = Constant <value = float {$scale_5}> ()
    scale_to_3 = Where (is_on_3, scale_3, scale_2)
    scale_to_4 = Where (is_on_4, scale_4, scale_to_3)
    scale = Where (is_on_5, scale_5, scale_to_4)
    cells = Mul (rows, scale)
    shifted = Sub (cells, half)
    start_corners = Constant <value = int64[2] {1, 0}> ()
    end_corners = Constant <value = int64[2] {3, 2}> ()
    starts = Gather <axis = 1> (shifted, start_corners)
    ends = Gather <axis = 1> (shifted, end_corners)
    lengths = Sub (ends, starts)
    one_and_one = Constant <value = int64[2] {1, 1}> ()
    length_y, length_x = Split <axis = 1> (lengths, one_and_one)
    has_length_y = Greater (length_y, zero)
    has_length_x = Greater (length_x, zero)
    is_pooled = And (has_length_y, has_length_x)"""

_IMAGES = """
    axes_23 = Constant <value = int64[2] {2, 3}> ()
    minus_1 = Constant <value = int64[1] {-1}> ()
    images = Shape <start = 0, end = 1> (boxes)"""
_IMAGE_OF_ROW = """
    image_count = Squeeze (images, axis_0)
    image_numbers = Range (first, image_count, step)
    image_column = Unsqueeze (image_numbers, axis_1)
    box_shape = Shape <start = 0, end = 2> (boxes)
    image_of_box = Expand (image_column, box_shape)
    image_of_row = Reshape (image_of_box, minus_1)
    stand_in = Constant <value = float[1,4] {0, 0, 1, 1}> ()"""

#: A box of another level, or without area, is one of a pixel, which costs a sample a bin; its
#: result is not taken. It must have an area: TensorRT's kernel divides by the number of samples.
_BY_OPERATOR = """
    is_pooled_% = And (is_pooled, is_on_%)
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

_SIZES = """
    cell_counts_% = Shape <start = 2, end = 4> (p%)
    sides_% = Cast <to = 1> (cell_counts_%)
    rows_% = Shape <start = 2, end = 3> (p%)
    columns_% = Shape <start = 3, end = 4> (p%)"""

#: How much of each cell along y, and along x, is in each bin of a box on its level: weights
#: [R,2,o,S] with as many cells S as p2 has, from the first on; there are none beyond a level's own.
#: RoIAlign is separable: the average of a bin's samples is that along y of those along x. A sample
#: takes max(0, 1 - distance) of a cell. Where there are several, they are more than half a cell
#: apart, so at most five can be within a cell of one, and the first of these is computed.
_WEIGHTS = """
    axis_2 = Constant <value = int64[1] {2}> ()
    axis_4 = Constant <value = int64[1] {4}> ()
    axes_12 = Constant <value = int64[2] {1, 2}> ()
    axes_234 = Constant <value = int64[3] {2, 3, 4}> ()
    one = Constant <value = float {1}> ()
    minus_one = Constant <value = float {-1}> ()
    smallest = Constant <value = float {1e-20}> ()
    five = Constant <value = float[5] {0, 1, 2, 3, 4}> ()
    bins_int = Constant <value_int: int = @output_size> ()
    bins = Cast <to = 1> (bins_int)
    bin_numbers_int = Range (first, bins_int, step)
    bin_numbers_1d = Cast <to = 1> (bin_numbers_int)
    bin_numbers = Unsqueeze (bin_numbers_1d, axes_12)
    cells_of_2 = Max (rows_2, columns_2)
    cell_count = Squeeze (cells_of_2, axis_0)
    cell_numbers_int = Range (first, cell_count, step)
    cell_numbers_1d = Cast <to = 1> (cell_numbers_int)
    cell = Unsqueeze (cell_numbers_1d, axis_1)
    cell_before = Sub (cell, one)
    sides_to_3 = Where (is_on_3, sides_3, sides_2)
    sides_to_4 = Where (is_on_4, sides_4, sides_to_3)
    sides_2d = Where (is_on_5, sides_5, sides_to_4)
    sides = Unsqueeze (sides_2d, axes_234)
    last_cell = Sub (sides, one)
    start = Unsqueeze (starts, axes_234)
    length = Unsqueeze (lengths, axes_234)
    bin = Div (length, bins)
    samples = Ceil (bin)
    divisor = Max (samples, one)
    bin_offset = Mul (bin_numbers, bin)
    bin_start = Add (start, bin_offset)
    pitch_or_0 = Div (bin, divisor)
    pitch = Max (pitch_or_0, smallest)
    distance_in_bin = Sub (cell_before, bin_start)
    first_sample_real = Div (distance_in_bin, pitch)
    first_sample_signed = Floor (first_sample_real)
    first_sample = Relu (first_sample_signed)
    sample = Add (first_sample, five)
    is_sample = Less (sample, samples)
    sample_middle = Add (sample, half)
    sample_in_bins = Mul (sample_middle, bin)
    sample_in_bin = Div (sample_in_bins, divisor)
    at = Add (bin_start, sample_in_bin)
    is_after = GreaterOrEqual (at, minus_one)
    is_before = LessOrEqual (at, sides)
    is_inside = And (is_after, is_before)
    counts = And (is_inside, is_sample)
    at_or_first = Max (at, zero)
    at_cell = Min (at_or_first, last_cell)
    offset = Sub (at_cell, cell)
    distance = Abs (offset)
    share_signed = Sub (one, distance)
    share_of_any = Relu (share_signed)
    share = Where (counts, share_of_any, zero)
    shares = ReduceSum <keepdims = 0> (share, axis_4)
    divisor_4d = Squeeze (divisor, axis_4)
    averages = Div (shares, divisor_4d)
    is_pooled_4d = Unsqueeze (is_pooled, axes_23)
    weights = Where (is_pooled_4d, averages, zero)
    along_y_index = Constant <value = int64 {0}> ()
    along_x_index = Constant <value = int64 {1}> ()
    along_y = Gather <axis = 1> (weights, along_y_index)
    along_x = Gather <axis = 1> (weights, along_x_index)
    axis_3 = Constant <value = int64[1] {3}> ()
    channels = Shape <start = 1, end = 2> (p2)
    bins_1d = Unsqueeze (bins_int, axis_0)
    bin_channels = Mul (bins_1d, channels)
    flat_shape = Constant <value = int64[3] {0, 0, -1}> ()"""

#: The weights along y of the boxes on a level, by image.
_ROWS = """
    is_on_3d_% = Unsqueeze (is_on_%, axis_2)
    along_y_of_any_% = Slice (along_y, axis_0, rows_%, axis_2)
    along_y_% = Where (is_on_3d_%, along_y_of_any_%, zero)
    row_shape_% = Concat <axis = 0> (images, minus_1, rows_%)
    along_y_of_image_% = Reshape (along_y_%, row_shape_%)"""

#: Where a piece of the columns of a level ends that is not the last, and a piece.
_BOUND = """
    pieces_before_% = Constant <value = int64[1] {$number}> ()
    bound_% = Mul (columns_4, pieces_before_%)"""
_PIECE = """
    column_count_% = Sub ($bound, $start)
    piece_of_map_% = Slice (p$level, $start, $bound, axis_3)"""

#: What columns give to all bins, [R,o C,o]: weights along y, the map, weights along x.
_PRODUCTS = """
    map_turned_% = Transpose <perm = [0, 2, 1, 3]> ($map)
    map_flat_% = Reshape (map_turned_%, flat_shape)
    bands_of_image_% = MatMul (along_y_of_image_$level, map_flat_%)
    band_shape_% = Concat <axis = 0> (minus_1, bin_channels, $column_count)
    bands_% = Reshape (bands_of_image_%, band_shape_%)
    along_x_% = Slice (along_x, $start, $bound, axis_2)
    along_x_turned_% = Transpose <perm = [0, 2, 1]> (along_x_%)
    part_% = MatMul (bands_%, along_x_turned_%)"""


def _part(level: str, number: int, pieces: int) -> str:
    """Text of ``part_LEVEL_NUMBER``: what a piece of a level gives; one piece is the level."""
    suffix = f"{level}_{number}"
    whole, last = pieces == 1, number == pieces
    words = {
        "$column_count": f"columns_{level}" if whole else f"column_count_{suffix}",
        "$level": level,
        "$number": str(number),
        "$start": "axis_0" if number == 1 else f"bound_{level}_{number - 1}",
        "$bound": f"columns_{level}" if last else f"bound_{suffix}",
        "$map": f"p{level}" if whole else f"piece_of_map_{suffix}",
    }
    text = _BOUND * (not last) + _PIECE * (not whole) + _PRODUCTS
    for word, value in words.items():
        text = text.replace(word, value)
    return each(text, (suffix,))


def _by_products() -> str:
    """Text of ``pooled``: the sum of all parts."""
    text = total = ""
    for level, pieces in _PIECES.items():
        for number in range(1, pieces + 1):
            text += _part(level, number, pieces)
            part = f"{level}_{number}"
            if total:
                text += f"\n    sum_{part} = Add ({total}, part_{part})"
            total = f"sum_{part}" if total else f"part_{part}"
    return f"""{text}
    row_count = Shape <start = 0, end = 1> (rows)
    by_bin_shape = Concat <axis = 0> (row_count, bins_1d, channels, bins_1d)
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
        Part(_LEVEL + _CELLS),
        Part(_IMAGES + _IMAGE_OF_ROW + each(_BY_OPERATOR, _LEVELS) + _TAKEN, unless=PLAIN),
        Part(_IMAGES + each(_SIZES, _LEVELS) + _WEIGHTS, when=PLAIN),
        Part(each(_ROWS, _LEVELS) + _by_products(), when=PLAIN),
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
