"""Nerfstudio method specifications, one factory per file; installs as `csd_nerf.method_configs`."""
