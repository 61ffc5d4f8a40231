"""Boxes and masks become shares of patches: against counts of pixels, and down to what the network is asked."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from csd_nerf.distill.distiller import evaluate
from csd_nerf.distill.guidance import ImageTextGuidance
from csd_nerf.distill.types import Condition, Target
from csd_nerf.images.patches import Crop, pad_to, patch_corners
from csd_nerf.images.regions import Region, composed_prompts, parse_box, read_mask, region_weights, untouched
from tests.distill.analytic import Constant, FormulaPrior, random_particles

FACTOR = 4


def soft_mask(height: int, width: int) -> Tensor:
    """Values of 8 bits, with a part that is 0."""
    mask = torch.rand(height, width, generator=torch.Generator().manual_seed(1))
    mask[:, : width // 3] = 0
    return (mask * 255).round() / 255


def counted(regions, corners, patch, crop: Crop) -> Tensor:
    """Pixel by pixel."""
    coverages = [region.coverage(crop.height, crop.width) for region in regions]
    shares = torch.zeros(len(regions) + 1, len(corners), dtype=torch.float64)
    for i, (top, left) in enumerate((corners * FACTOR).tolist()):
        for y in range(top, top + patch[0] * FACTOR):
            for column in range(left, left + patch[1] * FACTOR):
                x = column % crop.padded_width
                if crop.wrap:
                    x %= crop.width
                if y >= crop.height or x >= crop.width:
                    continue
                values = [float(coverage[y, x]) for coverage in coverages]
                shares[0, i] += max(0.0, 1 - sum(values))
                shares[1:, i] += torch.tensor(values, dtype=torch.float64)
    return (shares / shares.sum(dim=0)).float()


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize(("size", "patch"), [((24, 40), (3, 4)), ((22, 39), (3, 4)), ((9, 18), (4, 6))])
def test_weights_are_overlaps_in_pixels(size, patch, wrap) -> None:
    least = (patch[0] * FACTOR, 1 if wrap else patch[1] * FACTOR)
    _, crop = pad_to(torch.zeros(3, *size), FACTOR, least, wrap)
    corners = patch_corners(crop.padded_height // FACTOR, crop.padded_width // FACTOR, patch, 2, wrap)
    regions = [
        Region("a", box=(-3, 2, 11, 9)),
        Region("b", box=(7, 0, 17, size[0] + 5)),
        Region("c", mask=soft_mask(*size)),
    ]
    weights = region_weights(regions, corners, patch, FACTOR, crop)
    torch.testing.assert_close(weights, counted(regions, corners, patch, crop), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(len(corners)))
    assert ((weights > 0).sum(dim=1) > 0).all()


def test_masks_that_share_every_pixel_leave_nothing_to_the_rest() -> None:
    """The sum of their values misses 1 by rounding in many pixels."""
    masks = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1)).softmax(dim=0)
    assert (masks[0] + masks[1] + masks[2] < 1).any()
    regions = [Region(prompt, mask=mask) for prompt, mask in zip("abc", masks, strict=True)]
    corners = patch_corners(4, 4, (2, 2), 1)
    weights = region_weights(regions, corners, (2, 2), FACTOR, pad_to(torch.zeros(3, 16, 16), FACTOR)[1])
    assert torch.equal(weights[0], torch.zeros(len(corners)))
    assert not untouched(weights).all() and len(composed_prompts(regions)) == len(weights)


def test_patches_of_nothing_but_padding_belong_to_the_rest() -> None:
    _, crop = pad_to(torch.zeros(3, 8, 8), FACTOR, (16, 8))
    corners = patch_corners(4, 2, (2, 2), 2)
    weights = region_weights([Region("a", box=(0, 0, 8, 8))], corners, (2, 2), FACTOR, crop)
    assert weights.tolist() == [[0, 1], [1, 0]]
    assert untouched(weights).tolist() == [False, True]


class Asked(Constant):
    """Notes what it is asked."""

    def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.calls, self.texts = self.calls + 1, condition.text[:, 0, 0]
        return super().predict_noise(x_t, t, condition)


def edit(prompts: tuple[str, ...], weights: Tensor, prior: FormulaPrior) -> Tensor:
    n = weights.shape[1]
    texts = tuple(text.expand(n, *text.shape) for text in prior.encode_text(prompts))
    null = prior.encode_text([""])[0].expand(n, 2, 3)
    particles = random_particles(n).float()
    target = Target(texts=texts, null_text=null, image=torch.zeros_like(particles), weights=weights)
    estimate = ImageTextGuidance(text_scale=2.0, image_scale=1.0).estimate(particles, torch.tensor(300), target)
    return evaluate(prior, torch.tensor(300), [estimate])[0]


def test_prompts_without_a_share_cost_no_network_samples() -> None:
    """Patches of 8 pixels at 0, 4, .., 24 of a strip of 32: regions [0, 10) and [10, 32), which touch."""
    regions = [Region("c", box=(0, 0, 10, 8)), Region("b", box=(10, 0, 32, 8))]
    corners = patch_corners(2, 8, (2, 2), 1)
    weights = region_weights(regions, corners, (2, 2), FACTOR, pad_to(torch.zeros(3, 8, 32), FACTOR)[1])
    assert [int((row > 0).sum()) for row in weights] == [0, 3, 6]
    prior = Asked()
    edit(composed_prompts(regions, "rest"), weights, prior)
    null, rest, c, b = (float(text[0, 0]) for text in prior.encode_text(["", "rest", "c", "b"]))
    assert len({null, rest, c, b}) == 4 and prior.calls == 1
    counts = {value: int((prior.texts == torch.tensor(value)).sum()) for value in (null, rest, c, b)}
    assert counts == {null: 2 * 7, rest: 0, c: 3, b: 6} and len(prior.texts) == 2 * 7 + 9


def test_a_half_covered_patch_is_edited_half_as_strongly() -> None:
    regions = [Region("c", box=(0, 0, 12, 8))]
    corners = patch_corners(2, 6, (2, 2), 2)
    weights = region_weights(regions, corners, (2, 2), FACTOR, pad_to(torch.zeros(3, 8, 24), FACTOR)[1])
    assert weights.tolist() == [[0, 0.5, 1], [1, 0.5, 0]]
    prior = Constant()
    null, text = (float(value[0, 0]) for value in prior.encode_text(["", "c"]))
    assert text != null
    eps = edit(composed_prompts(regions), weights, prior).mean(dim=(1, 2, 3))
    torch.testing.assert_close(eps, null + 2.0 * torch.tensor([1, 0.5, 0]) * (text - null))


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("1,2,30,40", (1, 2, 30, 40)),
        ("50%,0,100%,100%", (100, 0, 200, 50)),
        (" 12.5% , 10 , 199 , 50% ", (25, 10, 199, 25)),
        ("-10,-5,300,60", (0, 0, 200, 50)),
        ("-5%,0%,+3,1", (0, 0, 3, 1)),
    ],
)
def test_boxes_are_read_and_clipped(text, box) -> None:
    assert parse_box(text, 200, 50) == box


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no box"),
        ("1,2,3", "no box"),
        ("1,2,3,4,5", "no box"),
        ("1,2,x,4", "no box"),
        ("1.5,2,3,4", "no box"),
        ("nan%,2,3,4", "no box"),
        ("5,5,5,10", "empty"),
        ("50,0,10,10", "X0 must be below X1"),
        ("0,0,0.1%,10", "empty"),
        ("200,0,300,10", "outside the picture of 200 x 50"),
        ("0,-9,10,0", "outside"),
    ],
)
def test_bad_boxes_are_refused(text, said) -> None:
    with pytest.raises(ValueError, match="--region") as error:
        parse_box(text, 200, 50)
    assert said in str(error.value)


def test_bad_regions_are_refused() -> None:
    with pytest.raises(ValueError, match="--region.*either"):
        Region("a")
    with pytest.raises(ValueError, match="--region.*either"):
        Region("a", box=(0, 0, 1, 1), mask=torch.ones(2, 2))
    with pytest.raises(ValueError, match="--region.*empty"):
        Region("  ", box=(0, 0, 1, 1))
    with pytest.raises(ValueError, match=r"--mask.*\[0, 1\]"):
        Region("a", mask=torch.full((2, 2), float("nan")))
    with pytest.raises(ValueError, match="--mask 'a.png' of 'a' has 30 x 20 pixels.* has 31 x 20"):
        Region("a", mask=torch.ones(20, 30), origin="a.png").coverage(20, 31)
    with pytest.raises(ValueError, match="--mask.*is empty"):
        Region("a", mask=torch.zeros(20, 30)).coverage(20, 30)
    with pytest.raises(ValueError, match="--region.*outside"):
        Region("a", box=(40, 0, 50, 10)).coverage(20, 30)


def test_masks_are_read_by_opacity_or_luminance(tmp_path: Path) -> None:
    grey = np.array([[0, 51], [102, 255]], np.uint8)
    wanted = torch.from_numpy(grey / np.float32(255))
    opaque = np.full_like(grey, 255)
    other = 255 - grey
    pictures = {
        "grey": Image.fromarray(grey),
        "colour": Image.fromarray(np.stack([grey] * 3, axis=-1)),
        "opaque": Image.fromarray(np.stack([grey, grey, grey, opaque], axis=-1)),
        "opacity": Image.fromarray(np.stack([other, other, opaque, grey], axis=-1)),
        "grey-opacity": Image.fromarray(np.stack([other, grey], axis=-1)),
        "sixteen": Image.fromarray(grey.astype(np.uint16) * 257),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png")
        torch.testing.assert_close(read_mask(tmp_path / f"{name}.png"), wanted, msg=name)
    Image.fromarray(grey.astype(np.float32) / 255).save(tmp_path / "float.tiff")
    torch.testing.assert_close(read_mask(tmp_path / "float.tiff"), wanted)
    Image.fromarray(grey > 100).save(tmp_path / "bits.png")
    assert read_mask(tmp_path / "bits.png").tolist() == [[0, 0], [1, 1]]


def test_a_mask_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--mask .*none.png"):
        read_mask(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="--mask .*text.png"):
        read_mask(tmp_path / "text.png")
    Image.fromarray(np.array([[0.0, 255.0]], np.float32)).save(tmp_path / "levels.tiff")
    with pytest.raises(ValueError, match=r"--mask .*levels\.tiff has values from 0 to 255"):
        read_mask(tmp_path / "levels.tiff")
    noise = (torch.rand(72, 72, generator=torch.Generator().manual_seed(0)) * 255).byte().numpy()
    Image.fromarray(noise).save(tmp_path / "whole.png")
    content = bytearray((tmp_path / "whole.png").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "damaged.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"--mask .*damaged\.png cannot be read"):
        read_mask(tmp_path / "damaged.png")


def test_masks_may_be_as_large_as_pictures(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # Pillow refuses pictures of twice that
    Image.fromarray(np.full((20, 20), 255, np.uint8)).save(tmp_path / "large.png")
    assert read_mask(tmp_path / "large.png").shape == (20, 20) and Image.MAX_IMAGE_PIXELS == 50
    monkeypatch.setattr("csd_nerf.images.picture_files.MOST_PIXELS", 399)
    with pytest.raises(ValueError, match=r"--mask .*large\.png has 20 x 20 pixels, more than 399"):
        read_mask(tmp_path / "large.png")


def test_a_region_that_counts_in_no_patch_is_refused() -> None:
    faint = torch.zeros(64, 64)
    faint[5, 5] = 1 / 255
    corners, crop = patch_corners(16, 16, (16, 16), 4), pad_to(torch.zeros(3, 64, 64), FACTOR)[1]
    good = Region("b", box=(0, 0, 9, 9))
    with pytest.raises(ValueError, match="--mask 'dim.png' of 'a' covers less than a millionth"):
        region_weights([good, Region("a", mask=faint, origin="dim.png")], corners, (16, 16), FACTOR, crop)
    faint[5, 5] = 2 / 255
    assert region_weights([good, Region("a", mask=faint)], corners, (16, 16), FACTOR, crop)[2].item() > 1e-6
