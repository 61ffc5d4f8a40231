"""Procedural 3D scenes with ground-truth edits."""
