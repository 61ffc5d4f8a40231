"""Files that travel with the package: the toy prior and the demo scene; installs as `csd_nerf.data`."""
