import torch

from csd_nerf.toyworld.judging.styles import UNCHANGED, nearest_style
from csd_nerf.toyworld.styles import PHOTO_STYLES, STYLES


def test_styles_are_told_apart_and_from_the_photo():
    photos = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).repeat_interleave(4, 2)
    photos = photos.repeat_interleave(4, 3)
    styled = {name: function(photos) for name, function in {**STYLES, **PHOTO_STYLES}.items()}
    for name, pictures in styled.items():
        noise = 0.05 * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1))
        assert nearest_style(pictures + noise, photos, styled) == [name, name]
    assert nearest_style(photos, photos, styled) == [UNCHANGED, UNCHANGED]
