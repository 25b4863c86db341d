"""What a VMamba consists of, by the names of its official modules.

Parts of a direction are there for rows and for columns; their own direction is where the scan goes.
"""

from __future__ import annotations

from vim_deploy.families.part import Part, Parts

_MIXER = "mixer"
#: What a scan goes along.
ALONG = ("rows", "columns")

PARTS = Parts(
    before=(Part("patch_embed", ("patch_embed",), "patch_embed", product=True),),
    block=(
        Part("residual", (), "residual", beside=True),
        Part("norm", ("norm",), "norm"),
        Part("in_proj", (_MIXER, "in_proj"), "in_proj", product=True),
        Part("conv2d", (_MIXER, "conv2d"), "conv"),
        *(
            Part(f"{name}_{along}", (_MIXER, f"{name}_{along}"), name, directed=True, product=made)
            for name, made in (("x_proj", True), ("dt_proj", True), ("scan", False))
            for along in ALONG
        ),
        # The sum of the directions.
        Part("mixed", (_MIXER,), "scan", beside=True),
        Part("out_norm", (_MIXER, "out_norm"), "norm"),
        Part("out_proj", (_MIXER, "out_proj"), "out_proj", product=True),
        Part("norm2", ("norm2",), "norm"),
        Part("fc1", ("mlp", "fc1"), "mlp", product=True),
        Part("act", ("mlp", "act"), "mlp"),
        Part("fc2", ("mlp", "fc2"), "mlp", product=True),
    ),
    behind=(
        Part("downsample_#", ("downsample_#",), "downsample"),
        Part("norm_f", ("norm_f",), "norm"),
    ),
    scope_roles={"patch_embed": "patch_embed", "downsample_#": "downsample"},
)
