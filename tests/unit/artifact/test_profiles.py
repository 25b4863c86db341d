"""Optimisation profiles from batch sizes and from trtexec's shape grammar."""

from __future__ import annotations

import pytest

from vim_deploy.artifact.profiles import (
    Profile,
    ProfileOptions,
    ShapeRange,
    check_profiles,
    narrowed,
    parse_shapes,
    resolve_profiles,
)
from vim_deploy.errors import VimDeployError
from vim_deploy.specs import TensorSpec

IMAGE = TensorSpec("image", "float32", ("batch", 3, 224, 224))
FIXED = TensorSpec("image", "float32", (4, 3, 224, 224))
UNNAMED = TensorSpec("image", "float32", (0, 3, 224, 224))
FREE_SIZE = TensorSpec("image", "float32", ("batch", 3, "height", "width"))
MASK = TensorSpec("mask", "float32", ("batch", 196))
TABLE = TensorSpec("table", "float32", (196,))


def batches(profile: Profile, name: str = "image") -> tuple[int, int, int]:
    shape = profile.shapes[name]
    return shape.min[0], shape.opt[0], shape.max[0]


def code_of(*args, **kwargs) -> str:
    with pytest.raises(VimDeployError) as caught:
        resolve_profiles(*args, **kwargs)
    assert caught.value.fix
    return caught.value.code


def test_default_is_batch_1_to_32_tuned_for_8():
    (profile,) = resolve_profiles([IMAGE])
    assert profile.shapes["image"] == ShapeRange(
        (1, 3, 224, 224), (8, 3, 224, 224), (32, 3, 224, 224)
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (ProfileOptions(max_batch=4), (1, 4, 4)),
        (ProfileOptions(opt_batch=64), (1, 64, 64)),
        (ProfileOptions(min_batch=16), (16, 16, 32)),
        (ProfileOptions(min_batch=64), (64, 64, 64)),
        (ProfileOptions(2, 3, 5), (2, 3, 5)),
        (ProfileOptions(1, 1, 1), (1, 1, 1)),
    ],
)
def test_a_default_gives_way_to_a_given_batch_size(options, expected):
    assert batches(resolve_profiles([IMAGE], options)[0]) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"min_batch": 0},
        {"max_batch": -1},
        {"max_batch": 2**31},
        {"min_batch": 9, "opt_batch": 8},
        {"opt_batch": 9, "max_batch": 8},
        {"min_batch": 3, "max_batch": 2},
    ],
)
def test_batch_sizes_that_make_no_range(options):
    with pytest.raises(VimDeployError) as caught:
        resolve_profiles([IMAGE], ProfileOptions(**options))
    assert caught.value.code == "VIM-202"


def test_a_shape_beyond_every_memory_is_refused():
    huge = ProfileOptions(opt_shapes=("image:2000000000x3x224x224",))
    assert code_of([IMAGE], huge) == "VIM-202"


def test_batch_covers_every_input_with_a_dynamic_first_size():
    (profile,) = resolve_profiles([IMAGE, MASK, TABLE], ProfileOptions(max_batch=2))
    assert batches(profile, "mask") == (1, 2, 2)
    assert profile.shapes["table"] == ShapeRange((196,), (196,), (196,))


def test_unnamed_dynamic_batch():
    assert batches(resolve_profiles([UNNAMED])[0]) == (1, 8, 32)


def test_fixed_batch_fixes_the_profile():
    (profile,) = resolve_profiles([FIXED])
    assert batches(profile) == (4, 4, 4)
    (same,) = resolve_profiles([FIXED], ProfileOptions(max_batch=4))
    assert same == profile


def test_other_batch_for_a_fixed_model_is_refused():
    assert code_of([FIXED], ProfileOptions(max_batch=32)) == "VIM-415"


def test_free_image_size_needs_shapes():
    assert code_of([FREE_SIZE]) == "VIM-202"
    (profile,) = resolve_profiles(
        [FREE_SIZE],
        ProfileOptions(
            min_shapes=("image:1x3x224x224",),
            opt_shapes=("image:2x3x384x224",),
            max_shapes=("image:4x3x512x512",),
        ),
    )
    assert profile.shapes["image"].opt == (2, 3, 384, 224)


def test_shapes_given_once_fix_the_shape_as_in_trtexec():
    (profile,) = resolve_profiles([IMAGE], ProfileOptions(opt_shapes=("image:2x3x224x224",)))
    assert batches(profile) == (2, 2, 2)


def test_several_profiles():
    options = ProfileOptions(
        min_shapes=("image:1x3x224x224", "image:9x3x224x224"),
        opt_shapes=("image:1x3x224x224", "image:16x3x224x224"),
        max_shapes=("image:8x3x224x224", "image:32x3x224x224"),
        indices=(0, 1),
    )
    assert [batches(profile) for profile in resolve_profiles([IMAGE], options)] == [
        (1, 1, 8),
        (9, 16, 32),
    ]


def test_an_input_with_fixed_sizes_needs_no_shape():
    options = ProfileOptions(opt_shapes=("image:2x3x224x224",))
    (profile,) = resolve_profiles([IMAGE, TABLE], options)
    assert profile.shapes["table"].max == (196,)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (ProfileOptions(max_batch=2, opt_shapes=("image:1x3x224x224",)), "VIM-203"),
        (ProfileOptions(min_shapes=("image:1x3x224x224",)), "VIM-203"),
        (
            ProfileOptions(
                min_shapes=("image:1x3x224x224",),
                opt_shapes=("image:1x3x224x224", "image:2x3x224x224"),
                max_shapes=("image:1x3x224x224",),
            ),
            "VIM-203",
        ),
        (ProfileOptions(opt_shapes=("image:1x3x224x224",), indices=(1,)), "VIM-203"),
        (ProfileOptions(indices=(0, 1)), "VIM-203"),
        (ProfileOptions(opt_shapes=("imge:1x3x224x224",)), "VIM-415"),
        (ProfileOptions(opt_shapes=("image:1x3x224",)), "VIM-415"),
        (ProfileOptions(opt_shapes=("image:1x3x256x256",)), "VIM-415"),
        (
            ProfileOptions(
                min_shapes=("image:4x3x224x224",),
                opt_shapes=("image:2x3x224x224",),
                max_shapes=("image:8x3x224x224",),
            ),
            "VIM-202",
        ),
        (
            ProfileOptions(
                min_shapes=("image:1x3x224x224",),
                opt_shapes=("image:9x3x224x224",),
                max_shapes=("image:8x3x224x224",),
            ),
            "VIM-202",
        ),
    ],
)
def test_shapes_that_do_not_fit(options, code):
    assert code_of([IMAGE], options) == code


def test_a_dynamic_input_left_out_is_named():
    with pytest.raises(VimDeployError, match="mask") as caught:
        resolve_profiles([IMAGE, MASK], ProfileOptions(opt_shapes=("image:1x3x224x224",)))
    assert caught.value.code == "VIM-202"


def test_a_misspelt_input_gets_the_nearest_name():
    with pytest.raises(VimDeployError) as caught:
        resolve_profiles([IMAGE], ProfileOptions(opt_shapes=("imgae:1x3x224x224",)))
    assert "'image'" in caught.value.fix


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image:1x3x224x224", {"image": (1, 3, 224, 224)}),
        ("a:1x2,b:3", {"a": (1, 2), "b": (3,)}),
        ("'input:0':8x1", {"input:0": (8, 1)}),
        ("/model/input:0:8", {"/model/input:0": (8,)}),
        (" a:1x2 , b:3 ", {"a": (1, 2), "b": (3,)}),
    ],
)
def test_shape_grammar(text, expected):
    assert parse_shapes(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "image",
        ":1x3",
        "image:",
        "image:1x",
        "image:ax3",
        "image:0x3",
        "image:-1x3",
        "image:1X3",
        "a:1,a:2",
        "a:1,",
        "image:1,3",
        "image:1.5",
        "image:\u0663",
        "image:99999999999",
    ],
)
def test_shape_grammar_refuses(text):
    with pytest.raises(VimDeployError) as caught:
        parse_shapes(text, "--maxShapes")
    assert caught.value.code == "VIM-202"
    assert "--maxShapes" in caught.value.message


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"image": None}, "missing"),
        ({"image": ShapeRange((1, 3), (1, 3), (1, 3))}, "has not the sizes"),
        (
            {"image": ShapeRange((1, 3, 224, 224), (1, 3, 224), (1, 3, 224, 224))},
            "has not the sizes",
        ),
        (
            {"image": ShapeRange((2, 3, 224, 224), (1, 3, 224, 224), (4, 3, 224, 224))},
            "goes from 2 by 1 to 4",
        ),
        (
            {"image": ShapeRange((0, 3, 224, 224), (1, 3, 224, 224), (4, 3, 224, 224))},
            "goes from 0",
        ),
        (
            {"image": ShapeRange((1, 3, 224, 224), (1, 3, 224, 224), (1 << 31, 3, 224, 224))},
            "2147483648",
        ),
    ],
)
def test_stored_profiles_fit_their_inputs(change, why):
    (profile,) = resolve_profiles([IMAGE, MASK])
    shapes = {**profile.shapes, **change}
    stored = Profile({name: item for name, item in shapes.items() if item})
    if not why:
        check_profiles([stored], [IMAGE, MASK])
        return
    with pytest.raises(ValueError, match=why):
        check_profiles([stored], [IMAGE, MASK])


SIZE = TensorSpec("size", "int64", ("batch", 2))


def test_sizes_follow_the_batch_of_the_images():
    for order in ([IMAGE, SIZE], [SIZE, IMAGE]):
        (profile,) = resolve_profiles(order, ProfileOptions(2, 3, 5))
        assert batches(profile) == batches(profile, "size") == (2, 3, 5)
        assert profile.shapes["size"].max == (5, 2)
    shapes = ProfileOptions(
        min_shapes=("image:1x3x224x224", "image:4x3x224x224,size:4x2"),
        opt_shapes=("image:2x3x224x224", "image:8x3x224x224"),
        max_shapes=("image:4x3x224x224", "image:8x3x224x224"),
    )
    first, second = resolve_profiles([IMAGE, SIZE], shapes)
    assert batches(first, "size") == (1, 2, 4)
    assert batches(second, "size") == (4, 8, 8)
    check_profiles([first, second], [IMAGE, SIZE])
    # A tool may have fixed the batch of the images alone.
    (profile,) = resolve_profiles([FIXED, SIZE], ProfileOptions(opt_shapes=("size:4x2",)))
    assert batches(profile, "size") == (4, 4, 4)


@pytest.mark.parametrize(
    ("inputs", "options", "code"),
    [
        ([IMAGE, SIZE], ProfileOptions(opt_shapes=("image:2x3x224x224,size:3x2",)), "VIM-203"),
        ([FIXED, SIZE], ProfileOptions(opt_shapes=("size:3x2",)), "VIM-415"),
        ([IMAGE, TensorSpec("size", "int64", (4, 2))], ProfileOptions(1, 2, 4), "VIM-203"),
    ],
)
def test_other_batches_of_sizes_are_refused(inputs, options, code):
    assert code_of(inputs, options) == code


def test_sizes_of_an_unknown_batch_follow_a_fixed_one():
    (profile,) = resolve_profiles([FIXED, SIZE])
    assert batches(profile, "size") == (4, 4, 4)
    assert code_of([FIXED, SIZE], ProfileOptions(max_batch=8)) == "VIM-415"


def test_what_all_inputs_take():
    wide = ShapeRange((1, 3), (8, 3), (32, 3))
    assert narrowed(wide) == wide
    assert narrowed(wide, ShapeRange((2, 2), (4, 2), (6, 2))) == ShapeRange((2, 3), (6, 3), (6, 3))
    none = narrowed(wide, ShapeRange((40, 2), (40, 2), (40, 2)))
    assert none.min[0] > none.max[0]
