"""What a Vim consists of, by the names of its official modules."""

from __future__ import annotations

from vim_deploy.families.part import Part, Parts

_MIXER = "mixer"

PARTS = Parts(
    before=(
        Part("patch_embed", ("patch_embed",), "patch_embed", product=True),
        Part("tokens", None, "tokens"),
    ),
    block=(
        Part("residual", (), "residual", beside=True),
        Part("norm", ("norm",), "norm"),
        Part("in_proj", (_MIXER, "in_proj"), "in_proj", product=True),
        Part("conv", (_MIXER, "conv1d"), "conv", directed=True),
        Part("x_proj", (_MIXER, "x_proj"), "x_proj", directed=True, product=True),
        Part("dt_proj", (_MIXER, "dt_proj"), "dt_proj", directed=True, product=True),
        Part("scan", (_MIXER, "scan"), "scan", directed=True),
        # The sum of the directions and its factor, where no fused op holds them.
        Part("mixed", (_MIXER,), "scan", beside=True),
        Part("out_proj", (_MIXER, "out_proj"), "out_proj", product=True),
    ),
    behind=(Part("norm_f", ("norm_f",), "norm"),),
    scope_roles={"patch_embed": "patch_embed", "rope": "rope"},
)
