from pathlib import Path

import pytest

from csd_nerf.scenes.run import EditRun
from tests.scenes.edit_fixtures import tiny_run


@pytest.fixture(scope="session")
def whole(tiny_scene: Path, tmp_path_factory: pytest.TempPathFactory) -> EditRun:
    """A run that nobody interrupted: six steps on the photos, two rounds, eight steps on the edits."""
    return tiny_run(tiny_scene, tmp_path_factory.mktemp("whole"))
