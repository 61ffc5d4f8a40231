"""What can go wrong while a prior is looked for and loaded."""


class PriorError(RuntimeError):
    """A prior could not be loaded."""


class PriorNotFoundError(PriorError):
    """Nothing is reachable under the name, folder or hub id that was given."""


class PriorLayoutError(PriorError):
    """Something is there, but it is not a diffusion model in diffusers' folder layout that we can run."""
