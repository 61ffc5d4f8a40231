"""Who may import whom, and what importing the plugin may cost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]


def test_import_contract(capsys: pytest.CaptureFixture[str]):
    """The contracts stand in pyproject.toml."""
    broken = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert not broken, capsys.readouterr().out


def test_entry_points_are_light():
    """Every `ns-*` command loads them, after nerfstudio's own modules: no network library, hardly any time."""
    script = """
import json, sys, time
from importlib.metadata import entry_points
import nerfstudio.engine.trainer, nerfstudio.models.nerfacto, nerfstudio.data.datamanagers.parallel_datamanager

before = set(sys.modules)  # some of nerfstudio's own imports are heavy

def seconds(load):
    start = time.process_time()  # of this process, so that a busy machine does not count
    load()
    return time.process_time() - start

def compatibility():
    import csd_nerf.scenes.compatibility

ours = [entry for entry in entry_points(group="nerfstudio.method_configs") if entry.value.startswith("csd_nerf")]
times = [seconds(compatibility), seconds(lambda: [entry.load() for entry in ours])]
names = sorted({entry.load().config.method_name for entry in ours})
heavy = {"diffusers", "transformers", "accelerate", "huggingface_hub", "safetensors", "lpips", "open_clip"}
heavy |= {"imageio_ffmpeg", "av", "torchmetrics.image.lpip"}
print(json.dumps([names, sorted(heavy & (set(sys.modules) - before)), times]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names, heavy, (compatibility, everything) = json.loads(done.stdout.splitlines()[-1])
    methods = ["csd-dreamfusion", "csd-edit", "latent-fm"]
    expected = sorted(methods + [f"{name}-lite" for name in methods])
    assert names == expected, "is the package installed (pip install -e .)?"
    assert heavy == []
    assert compatibility < 0.1
    assert everything < 0.3
