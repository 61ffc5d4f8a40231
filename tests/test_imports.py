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
    """Every `ns-*` command loads them: no network library, at most 0.3 s of processor time, both methods there."""
    script = """
import json, sys, time
from importlib.metadata import entry_points
ours = [entry for entry in entry_points(group="nerfstudio.method_configs") if entry.value.startswith("csd_nerf")]
import nerfstudio.engine.trainer, nerfstudio.models.nerfacto, nerfstudio.data.datamanagers.parallel_datamanager
start = time.process_time()
names = sorted({entry.load().config.method_name for entry in ours})
seconds = time.process_time() - start
heavy = {"diffusers", "transformers", "accelerate", "huggingface_hub", "safetensors", "lpips", "open_clip"}
heavy |= {"imageio_ffmpeg", "av", "torchmetrics.image.lpip"}
print(json.dumps([names, sorted(heavy & set(sys.modules)), seconds]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names, heavy, seconds = json.loads(done.stdout.splitlines()[-1])
    assert names == ["csd-edit", "csd-edit-lite"], "is the package installed (pip install -e .)?"
    assert heavy == []
    assert seconds < 0.3
