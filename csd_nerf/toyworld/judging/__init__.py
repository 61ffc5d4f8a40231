"""Verdicts on pictures of the toy world: pictures in, verdicts out. No network, no files."""
