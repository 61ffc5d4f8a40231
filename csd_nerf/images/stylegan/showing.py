"""What a generator shows: pictures of fixed latents, grids before and after, and walks between latents."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from csd_nerf.images.stylegan.generator import Generator, pictures
from csd_nerf.images.writing import contact_sheet

_ROWS_PER_CALL, _PIXELS_PER_CALL = 16, 16 * 256 * 256
"""Features of one picture of 1024 x 1024 pixels take what those of 16 of 256 x 256 take."""


def sample(generator: Generator, count: int, seed: int = 0, truncation: float = 1.0) -> Float[Tensor, "n 3 s s"]:
    """Pictures in [0, 1] of the first latents of a seed, with the generator's own noise, on the CPU."""
    return torch.cat(list(sampled(generator, count, seed, truncation)))


@torch.no_grad()
def sampled(
    generator: Generator, count: int, seed: int = 0, truncation: float = 1.0
) -> Iterator[Float[Tensor, "_n 3 s s"]]:
    """The pictures of `sample` in parts of at most 16: two thousand large ones do not fit in memory."""
    for z in latents_of(generator, count, seed).split(_rows(generator)):
        yield pictures(generator(z, truncation=truncation)).cpu()


def _rows(generator: Generator) -> int:
    return max(1, min(_ROWS_PER_CALL, _PIXELS_PER_CALL // generator.shape.size**2))


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
    generators: Sequence[Generator],
    stops: int,
    frames: int,
    seed: int = 0,
    truncation: float = 1.0,
    on_part: Callable[[int, int], None] | None = None,
) -> Iterator[Float[Tensor, "3 s t"]]:
    """Frames of a walk through w that ends where it began, the generators side by side, made as they are asked for.

    Between two of the `stops` lie `frames` frames; w is interpolated in straight lines, slower at the stops.
    `on_part(done, total)` hears of frames when the part that they were made in has been taken: while it is being taken,
    the time that all of it took would be counted for a few.
    """
    paths = []
    for generator in generators:
        w = generator.styles(latents_of(generator, stops, seed), truncation)
        shares = torch.arange(frames) / frames
        shares = (shares * shares * (3 - 2 * shares)).to(w)
        paths.append(
            torch.cat([torch.lerp(a, b, shares[:, None, None]) for a, b in zip(w, w.roll(-1, 0), strict=True)])
        )
    noises = [generator.noise("fixed", 1) for generator in generators]
    rows, done = min(map(_rows, generators)), 0
    for parts in zip(*(path.split(rows) for path in paths), strict=True):
        made = zip(generators, parts, noises, strict=True)
        yield from torch.cat([pictures(network.synthesise(w, noise)).cpu() for network, w, noise in made], dim=3)
        done += len(parts[0])
        if on_part is not None:
            on_part(done, stops * frames)
