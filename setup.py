"""Which folders become which packages; everything else about the distribution stands in pyproject.toml.

`data/` and `method_configs/` lie beside the code in the tree and install inside the package, so that no generic name
lands in site-packages. pyproject.toml can rename a folder, or find packages by itself, but not both at once.
"""

from setuptools import find_packages, setup

RELOCATED = {"csd_nerf.data": "data", "csd_nerf.method_configs": "method_configs"}

setup(
    packages=[*find_packages(include=["csd_nerf", "csd_nerf.*"]), *RELOCATED],
    package_dir=RELOCATED,
)
