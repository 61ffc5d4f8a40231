from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.model_components.renderers import RGBRenderer
from PIL import Image

from csd_nerf.scenes.edit_config import lite_config
from csd_nerf.scenes.edit_datamanager import EditDataManager, EditDataManagerConfig
from csd_nerf.scenes.edit_trainer import EditTrainerConfig
from tests.conftest import make_tiny_scene
from tests.scenes.edit_fixtures import shrink


def manager(data: Path, **changes: Any) -> EditDataManager:
    config = EditDataManagerConfig(data=data, train_num_rays_per_batch=512, eval_num_rays_per_batch=64, **changes)
    return config.setup(device="cpu", test_mode="val", world_size=1, local_rank=0)


def cached(data: EditDataManager) -> dict[str, Any]:
    """The pictures that pixels are drawn from."""
    batch = data.train_image_dataloader.cached_collated_batch
    assert batch is not None
    return batch


def red(height: int, width: int) -> torch.Tensor:
    return torch.tensor([200, 10, 30], dtype=torch.uint8).expand(height, width, 3).contiguous()


@pytest.mark.parametrize("subset", [{}, {"train_num_images_to_sample_from": 4, "train_num_times_to_repeat_images": 2}])
def test_training_pixels_come_from_the_edits_and_evaluation_pixels_do_not(tiny_scene: Path, subset: dict[str, int]):
    data = manager(tiny_scene, **subset)
    evaluated = data.fixed_indices_eval_dataloader.get_data_from_image_idx(0)[1]["image"].clone()
    for view in range(len(data.train_dataset)):
        data.put_view(view, red(*data.train_dataset.view_shape(view)))
    for step in range(6):
        _, batch = data.next_train(step)
        assert torch.allclose(batch["image"], torch.tensor([200, 10, 30]) / 255, atol=1e-6)
    assert torch.equal(data.fixed_indices_eval_dataloader.get_data_from_image_idx(0)[1]["image"], evaluated)
    assert not torch.allclose(data.next_eval(0)[1]["image"], torch.tensor([200, 10, 30]) / 255, atol=0.1)


def test_only_the_edited_view_changes_and_it_can_be_restored(tiny_scene: Path):
    data = manager(tiny_scene)
    before = cached(data)["image"].clone()
    original = data.train_dataset.original(3)
    data.put_view(3, red(32, 32))
    batch = cached(data)
    assert batch["image_idx"].tolist() == list(range(len(data.train_dataset))), "view v is row v"
    changed = (batch["image"] != before).flatten(1).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [3]
    assert torch.equal(data.train_dataset[3]["image"], red(32, 32) / 255)
    assert torch.equal(data.train_dataset.original(3), original), "the condition stays the photo"
    data.put_view(3, None)
    assert torch.equal(batch["image"], before)


def test_views_are_shrunk_with_their_cameras(tmp_path: Path):
    scene = make_tiny_scene(tmp_path / "scene", views=4, size=40)
    full, small = manager(scene), manager(scene, view_size=10)
    assert small.train_dataset.view_shape(0) == (10, 10)
    assert small.train_dataset.original(0).shape == (3, 10, 10)
    assert cached(small)["image"].shape[1:3] == (10, 10)
    whole, part = full.train_dataset.cameras, small.train_dataset.cameras
    assert torch.allclose(part.fx / part.width, whole.fx / whole.width), "the field of view stays"
    assert torch.allclose(part.cy / part.height, whole.cy / whole.height)
    assert manager(scene, view_size=999).train_dataset.view_shape(0) == (40, 40), "nothing is enlarged"


def test_portrait_views_keep_their_aspect(tmp_path: Path):
    scene = make_tiny_scene(tmp_path / "scene", views=3)
    for path in (scene / "images").iterdir():
        Image.open(path).resize((27, 48)).save(path)
    text = (scene / "transforms.json").read_text()
    (scene / "transforms.json").write_text(text.replace('"w": 32', '"w": 27').replace('"h": 32', '"h": 48'))
    assert manager(scene, view_size=9).train_dataset.view_shape(0) == (16, 9)


def make_transparent(scene: Path, mode: str) -> None:
    """The right half of each picture is transparent."""
    alpha = Image.new("L", (32, 32), 255)
    alpha.paste(0, (16, 0, 32, 32))
    for path in (scene / "images").iterdir():
        image = Image.open(path).convert("L" if mode == "LA" else "RGB")
        if mode == "P":  # one colour of the palette is transparent
            image = Image.composite(image, Image.new("RGB", image.size, (0, 255, 0)), alpha).quantize(16)
            image.save(path, transparency=image.getpixel((31, 31)))
            continue
        image.putalpha(alpha)
        image.save(path)
        assert Image.open(path).mode == mode


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize(("background", "value"), [("last_sample", 0), ("random", 0), ("black", 0), ("white", 1)])
def test_transparent_pictures_show_the_colour_that_the_model_trains_against(
    tmp_path: Path, mode: str, background: str, value: int
):
    scene = make_tiny_scene(tmp_path / "scene", views=3)
    make_transparent(scene, mode)
    config = lite_config().pipeline
    shrunk = EditTrainerConfig(pipeline=config)
    shrink(shrunk)
    config.prompt, config.datamanager.data, config.datamanager.view_size = "x", scene, None
    config.model.background_color = background  # pyright: ignore[reportAttributeAccessIssue]
    pipeline = config.setup(device="cpu", test_mode="val")
    data = pipeline.datamanager
    photo = data.train_dataset.original(0)
    assert (photo[:, :, 17:] == value).all()
    assert (photo[:, :, :15] != value).any()
    assert data.next_train(0)[1]["image"].shape[-1] == 3
    assert config.datamanager.background is None, "the configuration of the user stays"


def test_our_background_is_nerfactos_own():
    """As nerfstudio lays a transparent picture on the background of its loss."""
    pixels = torch.tensor([[1.0, 0.5, 0.0, 0.0]])
    for colour, value in (("last_sample", 0), ("black", 0), ("white", 1)):
        renderer = RGBRenderer(background_color=colour)  # pyright: ignore[reportArgumentType]
        _, photo = renderer.blend_background_for_loss_computation(pixels[:, :3], pixels[:, :1], pixels)
        assert (photo == value).all()


def test_masks_follow_the_views_size(tmp_path: Path):
    scene = make_tiny_scene(tmp_path / "scene", views=3)
    (scene / "masks").mkdir()
    mask = torch.zeros(32, 32, dtype=torch.uint8)
    mask[:, :16] = 255
    text = (scene / "transforms.json").read_text()
    for view in range(3):
        Image.fromarray(mask.numpy()).save(scene / f"masks/{view:03d}.png")
        name = f'"file_path": "images/{view:03d}.png"'
        text = text.replace(name, f'{name}, "mask_path": "masks/{view:03d}.png"')
    (scene / "transforms.json").write_text(text)
    data = manager(scene, view_size=8)
    assert data.train_dataset[0]["mask"].shape == (8, 8, 1)
    indices = data.next_train(0)[1]["indices"]
    assert indices[:, 2].max() < 4, "only pixels inside the mask are trained on"
