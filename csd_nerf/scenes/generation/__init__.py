"""Objects from text in nerfstudio: random cameras, a radiance field, and a frozen diffusion model that looks at it."""
