"""`csd-edit` and `csd-edit-lite` for `ns-train`.

nerfstudio imports this for every command, so it must stay cheap and must not fail: no prior, no diffusers here.
"""

from nerfstudio.plugins.types import MethodSpecification

from csd_nerf.scenes.edit_config import edit_config, lite_config

csd_edit = MethodSpecification(
    config=edit_config(),
    description="Edit a 3D scene from one sentence: CSD-Edit of its views with InstructPix2Pix, on nerfacto.",
)
csd_edit_lite = MethodSpecification(
    config=lite_config(),
    description="csd-edit on a machine without a GPU, in minutes: small field, small views, the embedded toy prior.",
)
