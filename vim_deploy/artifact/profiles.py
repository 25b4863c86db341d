"""Optimisation profiles: the input shapes an engine accepts.

A profile gives each input a smallest, a usual and a largest shape. It comes from batch sizes
(``--min-batch``, ``--opt-batch``, ``--max-batch``) or from shapes in trtexec's grammar
(``--minShapes image:1x3x224x224,mask:1x1``), and is checked against the ONNX file's inputs: a size
that the file fixes cannot be changed here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vim_deploy.artifact.metadata import ModelInputs, model_inputs
from vim_deploy.codec import stored
from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.ranges import BATCH, MOST_ELEMENTS, PROFILE, SIZE, require_all, shown
from vim_deploy.specs import TensorSpec

Shape = tuple[int, ...]

DEFAULT_MIN_BATCH = 1
DEFAULT_OPT_BATCH = 8
DEFAULT_MAX_BATCH = 32


@dataclass(frozen=True)
class ShapeRange:
    """Smallest, usual and largest shape of one input; the engine is tuned for ``opt``."""

    min: Shape
    opt: Shape
    max: Shape


def narrowed(image: ShapeRange, *others: ShapeRange) -> ShapeRange:
    """``image`` with only the batches that the ``others``, which have one in front, take as well.

    Where there are none, its least batch is above its largest.
    """
    every = (image, *others)
    low, high = max(item.min[0] for item in every), min(item.max[0] for item in every)
    usual = min(max(image.opt[0], low), high)
    tails = (image.min[1:], image.opt[1:], image.max[1:])
    return ShapeRange(
        *((size, *tail) for size, tail in zip((low, usual, high), tails, strict=True))
    )


@stored(inner="shapes")
@dataclass(frozen=True)
class Profile:
    """One optimisation profile: a shape range for every input, by name."""

    shapes: Mapping[str, ShapeRange]


@dataclass(frozen=True)
class ProfileOptions:
    """What the user asked for; nothing set means the default batch sizes.

    Attributes:
        min_batch, opt_batch, max_batch: sizes of the leading dynamic dimension.
        min_shapes, opt_shapes, max_shapes: trtexec shape lists; the n-th of each makes profile n.
        indices: trtexec's ``--profile`` numbers, in the order given; may be left out.
    """

    min_batch: int | None = None
    opt_batch: int | None = None
    max_batch: int | None = None
    min_shapes: tuple[str, ...] = ()
    opt_shapes: tuple[str, ...] = ()
    max_shapes: tuple[str, ...] = ()
    indices: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """VIM-202 for a number that nobody can mean."""
        require_all(self, min_batch=BATCH, opt_batch=BATCH, max_batch=BATCH, indices=PROFILE)

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes that were given."""
        sizes = (self.min_batch, self.opt_batch, self.max_batch)
        return tuple(size for size in sizes if size is not None)


def check_profiles(profiles: Sequence[Profile], inputs: Sequence[TensorSpec]) -> None:
    """What the types of stored profiles cannot say.

    Raises:
        ValueError: a profile lacks an input, or its sizes are no range of that input's shape.
    """
    for number, profile in enumerate(profiles):
        for spec in inputs:
            where = f"profile {number} of {spec.name!r}"
            if spec.name not in profile.shapes:
                raise ValueError(f"{where} is missing")
            found = profile.shapes[spec.name]
            if not len(found.min) == len(found.opt) == len(found.max) == len(spec.shape):
                raise ValueError(f"{where} has not the sizes of {describe(spec)}")
            for low, usual, high in zip(found.min, found.opt, found.max, strict=True):
                if not 1 <= low <= usual <= high <= SIZE.high:
                    raise ValueError(f"{where} goes from {low} by {usual} to {high}")


def parse_shapes(text: str, option: str = "--optShapes") -> dict[str, Shape]:
    """Read trtexec's shape list, ``name:1x3x224x224,'odd:name':8``.

    The last colon ends the name, single quotes around a name are dropped, sizes are joined by x.

    Raises:
        VimDeployError: VIM-202 naming the part that cannot be read.
    """
    shapes: dict[str, Shape] = {}
    for part in text.split(","):
        name, colon, sizes = part.strip().rpartition(":")
        name = name.strip().strip("'")
        if not colon or not name:
            raise _grammar_error(option, part, "a name, a colon and sizes were expected")
        if name in shapes:
            raise _grammar_error(option, part, f"{name!r} is given twice")
        try:
            shapes[name] = tuple(map(SIZE.parse, sizes.split("x")))
        except ValueError as error:
            raise _grammar_error(option, part, str(error)) from error
    return shapes


def _grammar_error(option: str, part: str, why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-202",
        f"{option}: cannot read {shown(part.strip())}",
        why=why,
        fix=f"write it as trtexec does, for example {option} image:1x3x224x224",
    )


def resolve_profiles(
    inputs: Sequence[TensorSpec], options: ProfileOptions | None = None
) -> tuple[Profile, ...]:
    """The profiles to build with, one or more, each complete and checked.

    Args:
        inputs: the ONNX file's inputs; a str (or 0) in a shape is a dynamic size. The batch of
            pictures' sizes is that of the pictures.
        options: what the user asked for.

    Raises:
        VimDeployError: VIM-202 (value not valid), VIM-203 (options contradict each other),
            VIM-415 (a shape does not fit the model).
    """
    options = options or ProfileOptions()
    shapes_given = options.min_shapes or options.opt_shapes or options.max_shapes
    if options.batches and shapes_given:
        raise VimDeployError(
            "VIM-203",
            "batch sizes and shapes were both given",
            why="each of them sets the whole profile",
            fix="use --min-batch/--opt-batch/--max-batch, or --minShapes/--optShapes/--maxShapes",
        )
    own = model_inputs(inputs)
    if own is not None and own.size is not None:
        inputs, own = _in_step(own.image, own.size)
    if shapes_given:
        texts = _shape_texts(options)
        profiles = tuple(_profile_from_shapes(inputs, own, *group) for group in texts)
    else:
        profiles = (_profile_from_batches(inputs, options),)
    _check_indices(options, len(profiles))
    if own is not None and own.size is not None:
        for profile in profiles:
            _check_in_step(profile, own.image.name, own.size.name)
    return profiles


def _in_step(image: TensorSpec, size: TensorSpec) -> tuple[Sequence[TensorSpec], ModelInputs]:
    """Both inputs, ``size`` with the fixed batch of the image where a tool has fixed that alone."""
    batch = image.shape[0]
    if not _is_dynamic(batch) and _is_dynamic(size.shape[0]):
        size = replace(size, shape=(batch, *size.shape[1:]))
    return (image, size), ModelInputs(image, size)


def _check_in_step(profile: Profile, image: str, size: str) -> None:
    """VIM-203 when pictures and their sizes have not the same batches."""
    found, wanted = (
        [shape.min[0], shape.opt[0], shape.max[0]]
        for shape in (profile.shapes[size], profile.shapes[image])
    )
    if found != wanted:
        raise VimDeployError(
            "VIM-203",
            f"the batches of {size!r} are not those of {image!r}",
            why=f"{found} against {wanted} (smallest, usual, largest)",
            fix=f"leave {size!r} out of the shapes: it has the batch of {image!r}; a file that "
            "fixes the batch of one of the two has to be exported again",
        )


def _check_indices(options: ProfileOptions, count: int) -> None:
    if options.indices and options.indices != tuple(range(count)):
        given = ", ".join(map(str, options.indices))
        raise VimDeployError(
            "VIM-203",
            f"--profile {given} does not number the profiles given",
            why=f"the shapes make {count} profile(s), which are numbered from 0 in order",
            fix="give --profile N before the shapes of each profile, counting from 0",
        )


def _shape_texts(options: ProfileOptions) -> list[tuple[str, str, str]]:
    """The texts of min, opt and max for each profile; trtexec's rule for what may be left out."""
    minimum, usual, maximum = options.min_shapes, options.opt_shapes, options.max_shapes
    if usual and not minimum and not maximum:
        minimum = maximum = usual
    if not len(minimum) == len(usual) == len(maximum):
        raise VimDeployError(
            "VIM-203",
            "the shapes do not make whole profiles",
            why=f"given: {len(minimum)} --minShapes, {len(usual)} --optShapes, "
            f"{len(maximum)} --maxShapes",
            fix="give --optShapes alone, or all three once for each profile",
        )
    return list(zip(minimum, usual, maximum, strict=True))


def _profile_from_shapes(
    inputs: Sequence[TensorSpec], own: ModelInputs | None, minimum: str, usual: str, maximum: str
) -> Profile:
    parsed = {
        "--minShapes": parse_shapes(minimum, "--minShapes"),
        "--optShapes": parse_shapes(usual, "--optShapes"),
        "--maxShapes": parse_shapes(maximum, "--maxShapes"),
    }
    names = [spec.name for spec in inputs]
    for option, shapes in parsed.items():
        for name in shapes:
            if name not in names:
                raise VimDeployError(
                    "VIM-415",
                    f"{option}: the model has no input {name!r}",
                    why="inputs: " + ", ".join(describe(spec) for spec in inputs),
                    fix=nearest(name, names),
                )
        if own is not None and own.size is not None:
            _add_size(shapes, own.image, own.size)
    ranges = {}
    for spec in inputs:
        three = [
            _shape_for(spec, shapes.get(spec.name), option) for option, shapes in parsed.items()
        ]
        ranges[spec.name] = _checked_range(spec, ShapeRange(*three), tuple(parsed))
    return Profile(ranges)


def _add_size(shapes: dict[str, Shape], image: TensorSpec, size: TensorSpec) -> None:
    """The shape of ``size``, which follows the image's, where it is not given or fixed."""
    batch = shapes.get(image.name, image.shape)[0]
    if _is_dynamic(size.shape[0]) and not _is_dynamic(batch):
        shapes.setdefault(size.name, (int(batch), *map(int, size.shape[1:])))


def _is_dynamic(size: int | str) -> bool:
    # ONNX leaves out the size of an unnamed dynamic dimension, which reads as 0.
    return isinstance(size, str) or size == 0


def describe(spec: TensorSpec) -> str:
    """An input as its name and sizes, ``image:batchx3x224x224``; ``?`` is an unnamed size."""
    return f"{spec.name}:" + "x".join(str(size or "?") for size in spec.shape)


def _shape_for(spec: TensorSpec, given: Shape | None, option: str) -> Shape:
    """``given`` if it fits the input's fixed sizes; the input's own shape when all are fixed."""
    if given is None:
        fixed = tuple(size for size in spec.shape if isinstance(size, int) and size)
        if len(fixed) == len(spec.shape):
            return fixed
        raise VimDeployError(
            "VIM-202",
            f"{option} says nothing about the input {spec.name!r}",
            why=f"it has dynamic sizes: {describe(spec)}",
            fix=f"add {spec.name}:SIZES to {option}",
        )
    sizes = zip(spec.shape, given, strict=False)
    if len(given) != len(spec.shape) or any(
        not _is_dynamic(own) and own != asked for own, asked in sizes
    ):
        raise VimDeployError(
            "VIM-415",
            f"{option}: {spec.name}:{'x'.join(map(str, given))} does not fit the model",
            why=f"the file has {describe(spec)}",
            fix="change only the dynamic sizes, or export the model again with other sizes",
        )
    return given


def _checked_range(spec: TensorSpec, shape: ShapeRange, options: Sequence[str]) -> ShapeRange:
    for low, high, names in (
        (shape.min, shape.opt, options[:2]),
        (shape.opt, shape.max, options[1:]),
    ):
        if any(a > b for a, b in zip(low, high, strict=True)):
            first, second = ("x".join(map(str, sizes)) for sizes in (low, high))
            raise VimDeployError(
                "VIM-202",
                f"{names[0]} is larger than {names[1]} for the input {spec.name!r}",
                why=f"{first} against {second}",
                fix=f"keep {options[0]} <= {options[1]} <= {options[2]} in every size",
            )
    if math.prod(shape.max) > MOST_ELEMENTS:
        raise VimDeployError(
            "VIM-202",
            f"{options[2]}: {spec.name}:{'x'.join(map(str, shape.max))} fits into no GPU's memory",
            why=f"a tensor has at most {MOST_ELEMENTS} elements",
            fix="give smaller sizes",
        )
    return shape


def _profile_from_batches(inputs: Sequence[TensorSpec], options: ProfileOptions) -> Profile:
    batches = _batches(options)
    ranges = {}
    dynamic = False
    for spec in inputs:
        free = [axis for axis, size in enumerate(spec.shape) if _is_dynamic(size)]
        if any(axis > 0 for axis in free):
            raise VimDeployError(
                "VIM-202",
                f"batch sizes alone do not say the shape of the input {spec.name!r}",
                why=f"it has other dynamic sizes: {describe(spec)}",
                fix=f"give --minShapes, --optShapes and --maxShapes {spec.name}:SIZES",
            )
        tail = tuple(int(size) for size in spec.shape[1:])
        if free:
            dynamic = True
            ranges[spec.name] = ShapeRange(*((batch, *tail) for batch in batches))
        else:
            shape = tuple(int(size) for size in spec.shape)
            ranges[spec.name] = ShapeRange(shape, shape, shape)
    if not dynamic:
        _check_fixed_batch(inputs, options)
    return Profile(ranges)


def _batches(options: ProfileOptions) -> tuple[int, int, int]:
    """Given sizes as they are; a default gives way to them."""
    minimum = options.min_batch or min([DEFAULT_MIN_BATCH, *options.batches])
    maximum = options.max_batch or max([DEFAULT_MAX_BATCH, *options.batches])
    usual = options.opt_batch or min(max(DEFAULT_OPT_BATCH, minimum), maximum)
    if not minimum <= usual <= maximum:
        raise VimDeployError(
            "VIM-202",
            "the batch sizes are not in order",
            why=f"min {minimum}, opt {usual}, max {maximum}",
            fix="keep --min-batch <= --opt-batch <= --max-batch",
        )
    return minimum, usual, maximum


def _check_fixed_batch(inputs: Sequence[TensorSpec], options: ProfileOptions) -> None:
    """A file with a fixed batch has one profile; asking for another is not passed over."""
    for size in options.batches:
        for spec in inputs:
            if spec.shape and spec.shape[0] != size:
                raise VimDeployError(
                    "VIM-415",
                    f"batch size {size} was asked for, but the model's batch is fixed",
                    why=f"the file has {describe(spec)}",
                    fix="export it with --batch dynamic, or leave the batch options out",
                )
