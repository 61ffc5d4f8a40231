"""Consistent text-driven editing of sets of images by Collaborative Score Distillation."""

__version__ = "0.1.0"
