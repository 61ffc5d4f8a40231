"""Consumers of the distiller in two dimensions, and how pictures and videos are written."""
