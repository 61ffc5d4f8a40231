"""What is installed: from a checkout (`pip install -e .`) and from a wheel."""

import ast
import importlib
import importlib.metadata
import importlib.resources
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import csd_nerf

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
UNIMPORTED = {
    "accelerate": "diffusers loads networks with it",
    "torchvision": "must pair with torch; nerfstudio imports it",
    "open3d": "nerfstudio imports it; bounded here",
    "torchsummary": "stlpips-pytorch imports it without declaring it",
}


def normal(name: str) -> str:
    """The registry's spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: list[str]) -> set[str]:
    """The distributions that requirements name."""
    return {normal(re.split(r"[\[<>=!~;\s]", requirement)[0]) for requirement in requirements}


def imported(folder: Path) -> Iterator[str]:
    """Top-level modules that the files in `folder` import, inside functions too."""
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                yield str(node.module).split(".")[0]


def test_versions_agree():
    assert csd_nerf.__version__ == PROJECT["version"] == importlib.metadata.version("csd_nerf")


def test_dependencies_are_those_imported():
    """Whatever the package imports is declared, and nothing else is."""
    owners = importlib.metadata.packages_distributions()
    modules = {*imported(ROOT / "csd_nerf"), *imported(ROOT / "method_configs"), *imported(ROOT / "data")}
    modules -= {"csd_nerf", *sys.stdlib_module_names}
    allowed = declared([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["ray"]])
    missing = {m for m in modules if not {normal(o) for o in owners.get(m, [m])} & allowed}
    unused = declared(PROJECT["dependencies"]) - {normal(o) for m in modules for o in owners.get(m, [m])}
    assert missing == set()
    assert unused - UNIMPORTED.keys() == set()


def test_checkout_has_the_relocated_folders():
    """`data/` and `method_configs/` are reached under the package's name."""
    assert importlib.import_module("csd_nerf.method_configs.csd_edit").csd_edit.config.method_name == "csd-edit"
    assert importlib.resources.files("csd_nerf.data").joinpath("__init__.py").is_file()


@pytest.mark.slow
def test_wheel(tmp_path: Path):
    """A wheel carries every file of `data/`, nothing under a generic name, and works away from the checkout."""
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "outputs"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    (information,) = (tmp_path / "site").glob("*.dist-info")
    assert {name.split("/")[0] for name in names} == {"csd_nerf", information.name}
    for folder in ("csd_nerf", "data", "method_configs"):
        prefix = "" if folder == "csd_nerf" else "csd_nerf/"
        kinds = "*" if folder == "data" else "*.py"
        files = [file for file in (ROOT / folder).rglob(kinds) if file.is_file() and "__pycache__" not in file.parts]
        assert {prefix + file.relative_to(ROOT).as_posix() for file in files} <= names
    assert not any("__pycache__" in name for name in names)
    assert "csd-edit-lite" in (information / "entry_points.txt").read_text()
    assert (information / "licenses" / "LICENSE").is_file()
    script = (
        "import csd_nerf.method_configs, csd_nerf.data as d, importlib.resources as r; print(r.files(d), d.__file__)"
    )
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert str(tmp_path / "site" / "csd_nerf" / "data") in done.stdout
