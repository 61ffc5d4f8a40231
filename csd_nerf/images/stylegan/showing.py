"""What a generator shows: pictures of fixed latents, grids before and after, and walks between latents."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from csd_nerf.images.stylegan.generator import Generator, pictures
from csd_nerf.images.writing import contact_sheet

_ROWS_PER_CALL = 16


@torch.no_grad()
def sample(generator: Generator, count: int, seed: int = 0, truncation: float = 1.0) -> Float[Tensor, "n 3 s s"]:
    """Pictures in [0, 1] of the first latents of a seed, with the generator's own noise, on the CPU."""
    z = latents_of(generator, count, seed)
    shown = [pictures(generator(part, truncation=truncation)) for part in z.split(_ROWS_PER_CALL)]
    return torch.cat(shown).cpu()


def latents_of(generator: Generator, count: int, seed: int) -> Float[Tensor, "n d"]:
    """The first z of a seed: the same for every generator whose z has this length."""
    random = torch.Generator().manual_seed(seed)
    # One by one: torch draws other numbers for a few than for many.
    z = [torch.randn(generator.shape.style, generator=random) for _ in range(count)]
    return torch.stack(z).to(generator.constant.device)


def before_and_after(
    generators: Sequence[tuple[str, Generator]], count: int, seed: int = 0, truncation: float = 1.0, side: int = 128
) -> Image.Image:
    """One row for each generator, the same z in each column."""
    rows = [(title, list(sample(generator, count, seed, truncation))) for title, generator in generators]
    return contact_sheet(rows, scale=max(1, side // rows[0][1][0].shape[-1]))


@torch.no_grad()
def walk(
    generators: Sequence[Generator], stops: int, frames: int, seed: int = 0, truncation: float = 1.0
) -> list[Float[Tensor, "3 s t"]]:
    """Frames of a walk through w that ends where it began, the generators side by side.

    Between two of the `stops` lie `frames` frames; w is interpolated in straight lines, slower at the stops.
    """
    shown = []
    for generator in generators:
        w = generator.styles(latents_of(generator, stops, seed), truncation)
        shares = torch.arange(frames) / frames
        shares = (shares * shares * (3 - 2 * shares)).to(w)
        path = torch.cat([torch.lerp(a, b, shares[:, None, None]) for a, b in zip(w, w.roll(-1, 0), strict=True)])
        noise = generator.noise("fixed", 1)
        shown.append(torch.cat([pictures(generator.synthesise(p, noise)) for p in path.split(_ROWS_PER_CALL)]).cpu())
    return list(torch.cat(shown, dim=3))
