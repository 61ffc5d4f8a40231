"""`csd-dreamfusion` and `csd-dreamfusion-lite` for `ns-train`.

nerfstudio imports this for every command, so it must stay cheap and must not fail: no prior, no diffusers here.
"""

from nerfstudio.plugins.types import MethodSpecification

from csd_nerf.scenes.generation.config import dreamfusion_config, dreamfusion_lite_config

csd_dreamfusion = MethodSpecification(
    config=dreamfusion_config(),
    description="Make a 3D object from one sentence: collaborative score distillation of its views with DeepFloyd IF.",
)
csd_dreamfusion_lite = MethodSpecification(
    config=dreamfusion_lite_config(),
    description="csd-dreamfusion on a machine without a GPU, in minutes: dense grids and the embedded toy prior.",
)
