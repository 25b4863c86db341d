"""``VimSortedNms``: greedy non-maximum suppression within groups, as a mask of fixed shape.

Inputs, all float32 but ``group``: boxes [B,N,4] as x1, y1, x2, y2 by falling score, group int64
[B,N] in [0, ``groups``), valid [B,N], 1 or 0; output: keep [B,N], 1 or 0. From the first box to the
last::

    keep_i = valid_i and x2_i > x1_i and y2_i > y1_i
             and no j < i of the same group has keep_j and IoU(i, j) > iou_threshold

The order stands for the scores, so there are no ties, and no score has to be precise. Boxes are
finite, and so are their areas.
"""

from __future__ import annotations

import numpy as np

from vim_deploy.ops.op import PLAIN, Array, Kind, Op, Part

#: Sides and corners [B,N,1], what may be kept at all [B,N], and the numbers of the boxes.
_BOXES = """
    axis_0 = Constant <value = int64[1] {0}> ()
    axis_1 = Constant <value = int64[1] {1}> ()
    axis_2 = Constant <value = int64[1] {2}> ()
    corner_sizes = Constant <value = int64[4] {1, 1, 1, 1}> ()
    x1, y1, x2, y2 = Split <axis = 2> (boxes, corner_sizes)
    has_width = Greater (x2, x1)
    has_height = Greater (y2, y1)
    has_area_3d = And (has_width, has_height)
    has_area = Squeeze (has_area_3d, axis_2)
    half = Constant <value = float {0.5}> ()
    is_valid = Greater (valid, half)
    is_live = And (is_valid, has_area)
    number_of_boxes = Shape <start = 1, end = 2> (valid)
    count = Squeeze (number_of_boxes, axis_0)
    first = Constant <value = int64 {0}> ()
    step = Constant <value = int64 {1}> ()
    order = Range (first, count, step)
    zero = Constant <value = float {0}> ()
    iou_limit = Constant <value_float: float = @iou_threshold> ()"""

#: The operator sorts by scores, which are ranks here, each group a class of its own. It selects
#: above the score threshold 0, and as many as there are boxes. Its indices, as many as are kept,
#: end behind ScatterND. tract takes limits of one axis only.
_BY_OPERATOR = """
    rank_int = Sub (count, order)
    rank = Cast <to = 1> (rank_int)
    score = Where (is_live, rank, zero)
    score_3d = Unsqueeze (score, axis_1)
    number_of_groups = Constant <value_int: int = @groups> ()
    groups_1d = Range (first, number_of_groups, step)
    groups_2d = Unsqueeze (groups_1d, axis_1)
    group_3d = Unsqueeze (group, axis_1)
    is_member = Equal (group_3d, groups_2d)
    scores = Where (is_member, score_3d, zero)
    iou_limit_1d = Unsqueeze (iou_limit, axis_0)
    score_limit = Constant <value = float[1] {0}> ()
    selected = NonMaxSuppression (boxes, scores, number_of_boxes, iou_limit_1d, score_limit)
    image_and_box = Constant <value = int64[2] {0, 2}> ()
    kept_index = Gather <axis = 1> (selected, image_and_box)
    kept_count = Shape <start = 0, end = 1> (selected)
    one = Constant <value = float {1}> ()
    ones = Expand (one, kept_count)
    keep_shape = Shape (valid)
    nothing = ConstantOfShape <value = float[1] {0}> (keep_shape)
    keep = ScatterND (nothing, kept_index, ones)"""

#: ``beats`` [B,N,N]: whether box j, in the columns, suppresses box i once it is kept itself. The
#: division is the operator's, so that both round alike. No union is below the smallest float32 but
#: that of two boxes without area, which would be 0 / 0.
_BEATS = """
    x1_columns = Transpose <perm = [0, 2, 1]> (x1)
    y1_columns = Transpose <perm = [0, 2, 1]> (y1)
    x2_columns = Transpose <perm = [0, 2, 1]> (x2)
    y2_columns = Transpose <perm = [0, 2, 1]> (y2)
    left = Max (x1, x1_columns)
    top = Max (y1, y1_columns)
    right = Min (x2, x2_columns)
    bottom = Min (y2, y2_columns)
    overlap_width_signed = Sub (right, left)
    overlap_width = Relu (overlap_width_signed)
    overlap_height_signed = Sub (bottom, top)
    overlap_height = Relu (overlap_height_signed)
    overlap = Mul (overlap_width, overlap_height)
    width = Sub (x2, x1)
    height = Sub (y2, y1)
    area = Mul (width, height)
    area_columns = Transpose <perm = [0, 2, 1]> (area)
    both_areas = Add (area, area_columns)
    union_or_0 = Sub (both_areas, overlap)
    smallest = Constant <value = float {1.17549435e-38}> ()
    union = Max (union_or_0, smallest)
    iou = Div (overlap, union)
    is_over = Greater (iou, iou_limit)
    group_rows = Unsqueeze (group, axis_2)
    group_columns = Unsqueeze (group, axis_1)
    is_same_group = Equal (group_rows, group_columns)
    order_rows = Unsqueeze (order, axis_1)
    is_earlier = Greater (order_rows, order)
    is_over_in_group = And (is_over, is_same_group)
    is_beaten_by = And (is_over_in_group, is_earlier)
    beats = Cast <to = 1> (is_beaten_by)
    live_2d = Cast <to = 1> (is_live)
    live = Unsqueeze (live_2d, axis_2)"""

#: Round t settles box t at the latest, for it hangs on earlier ones alone; what is settled stays.
#: So the rounds end where one changes nothing, and that is the greedy result, exactly.
_ROUNDS = """
    go_on = Constant <value = bool {1}> ()
    kept_rows = Loop <body = round (int64 number, bool is_on, float[images, rows, one] kept_in)
        => (bool is_changed, float[images, rows, one] kept_out) {
        beaten = MatMul (beats, kept_in)
        is_free = Less (beaten, half)
        free = Cast <to = 1> (is_free)
        kept_out = Mul (live, free)
        change = Sub (kept_out, kept_in)
        distance = Abs (change)
        most = ReduceMax <keepdims = 0> (distance)
        is_changed = Greater (most, half)
    }> (count, go_on, live)
    keep = Squeeze (kept_rows, axis_2)"""


def sorted_nms(
    boxes: Array, group: Array, valid: Array, *, iou_threshold: float, groups: int
) -> Array:
    """The op in float64, keep [B,N]; shapes as above, ``groups`` is for bodies alone."""
    sides = boxes[..., 2:] - boxes[..., :2]
    live = (valid > 0.5) & (sides > 0).all(axis=-1) & (group >= 0) & (group < groups)
    keep = np.zeros(valid.shape)
    for image in range(len(boxes)):
        for box in np.flatnonzero(live[image]):
            earlier = np.flatnonzero(keep[image, :box] * (group[image, :box] == group[image, box]))
            overlaps = _iou(boxes[image, box], boxes[image, earlier])
            keep[image, box] = not (overlaps > iou_threshold).any()
    return keep


def _iou(box: Array, others: Array) -> Array:
    """Intersection over union of a box [4] with others [M,4]; all have an area."""
    ends, starts = np.minimum(box[2:], others[:, 2:]), np.maximum(box[:2], others[:, :2])
    overlap = np.maximum(ends - starts, 0.0).prod(axis=1)
    areas = [(corners[..., 2:] - corners[..., :2]).prod(axis=-1) for corners in (box, others)]
    return np.asarray(overlap / (areas[0] + areas[1] - overlap))


SORTED_NMS = Op(
    name="VimSortedNms",
    inputs=("boxes", "group", "valid"),
    outputs=("keep",),
    attributes={"iou_threshold": Kind.NUMBER, "groups": Kind.COUNT},
    body=(
        Part(_BOXES),
        Part(_BY_OPERATOR, unless=PLAIN),
        Part(_BEATS, when=PLAIN),
        Part(_ROUNDS, when=PLAIN),
    ),
    reference=sorted_nms,
    fp32=("boxes", "valid", "keep"),
    int64=("group",),
    per_node=("iou_threshold", "groups"),
    kernel_sizes=("batch", "count"),
    plugin=False,
    plain_loops=True,
)
