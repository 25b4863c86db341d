"""What a MambaVision consists of, by the names of its official modules.

Blocks are numbered over all levels. Those of convolutions, of mixers and of attention have parts of
their own; what they share has one name.
"""

from __future__ import annotations

from vim_deploy.families.part import Part, Parts

_MIXER = "mixer"

PARTS = Parts(
    before=(Part("patch_embed", ("patch_embed",), "patch_embed", product=True),),
    block=(
        Part("residual", (), "residual", beside=True),
        # Of convolutions.
        Part("conv1", ("conv1",), "conv_block"),
        Part("conv_act", ("act1",), "conv_block", narrow=True),
        Part("conv2", ("conv2",), "conv_block"),
        # Of tokens.
        Part("norm", ("norm1",), "norm"),
        Part("in_proj", (_MIXER, "in_proj"), "in_proj", product=True),
        Part("conv", (_MIXER, "conv1d"), "conv", directed=True),
        Part("x_proj", (_MIXER, "x_proj"), "x_proj", directed=True, product=True),
        Part("dt_proj", (_MIXER, "dt_proj"), "dt_proj", directed=True, product=True),
        Part("scan", (_MIXER, "scan"), "scan", directed=True),
        Part("conv_z", (_MIXER, "conv1d_z"), "conv"),
        Part("mixed", (_MIXER,), "scan", beside=True),
        Part("out_proj", (_MIXER, "out_proj"), "out_proj", product=True),
        Part("qkv", (_MIXER, "qkv"), "qkv", product=True),
        Part("q_norm", (_MIXER, "q_norm"), "norm"),
        Part("k_norm", (_MIXER, "k_norm"), "norm"),
        Part("attend", (_MIXER, "attend"), "attention", narrow=True),
        Part("proj", (_MIXER, "proj"), "proj", product=True),
        Part("norm2", ("norm2",), "norm"),
        Part("fc1", ("mlp", "fc1"), "mlp", product=True),
        Part("act", ("mlp", "act"), "mlp"),
        Part("fc2", ("mlp", "fc2"), "mlp", product=True),
    ),
    behind=(
        Part("downsample_#", ("downsample_#",), "downsample"),
        Part("norm_f", ("norm",), "norm"),
    ),
    scope_roles={"patch_embed": "patch_embed", "downsample_#": "downsample"},
)
