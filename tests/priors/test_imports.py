import subprocess
import sys


def test_importing_the_priors_is_light():
    """`ns-train --help` imports us: no network library may come along."""
    code = (
        "import sys, csd_nerf.priors\n"
        "heavy = {'diffusers', 'transformers', 'huggingface_hub', 'safetensors', 'nerfstudio', 'accelerate'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
