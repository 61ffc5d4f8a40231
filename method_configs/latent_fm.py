"""`latent-fm` and `latent-fm-lite` for `ns-train`.

nerfstudio imports this for every command, so it must stay cheap and must not fail: no prior, no diffusers here.
"""

from nerfstudio.plugins.types import MethodSpecification

from csd_nerf.scenes.generation.latent_config import latent_config, latent_lite_config

latent_fm = MethodSpecification(
    config=latent_config(),
    description="Make a 3D object from one sentence in latent space: score distillation with feature matching and KL.",
)
latent_fm_lite = MethodSpecification(
    config=latent_lite_config(),
    description="latent-fm on a machine without a GPU, in minutes: dense grids and the embedded toy prior.",
)
