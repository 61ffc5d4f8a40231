"""`csd prior check`: what a prior can do on the toy world, as a table, a file, pictures, and a section of its card."""

from csd_nerf.commands.prior_check.command import PriorCheck

__all__ = ["PriorCheck"]
