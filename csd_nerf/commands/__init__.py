"""What the commands of `csd` do, one module each; `csd_nerf.cli` gives them their flags."""
