"""Colours of video frames: Y'CbCr codes of any matrix, range and depth, to R'G'B' in [0, 1] and back.

With `k_r`, `k_b` of the matrix, `k_g = 1 - k_r - k_b` and codes of `n` bits, `s = 2^(n-8)`:

    y = (Y - 16 s) / (219 s),  p_b = (Cb - 128 s) / (224 s),  p_r = (Cr - 128 s) / (224 s)      limited range
    y = Y / (2^n - 1),  p_b = (Cb - 128 s) / (2^n - 1),  p_r = (Cr - 128 s) / (2^n - 1)         full range
    r = y + 2 (1 - k_r) p_r,   b = y + 2 (1 - k_b) p_b,   g = (y - k_r r - k_b b) / k_g

(ITU-R BT.601, BT.709, BT.2020, H.273.) Chroma of half resolution is interpolated between samples that lie in the middle
of the pixels that share them, and averaged over those on the way back. All of it is done here and not by FFmpeg's
scaler, whose fast paths miss these formulas by up to 5/255, and which rescales ranges where it should not.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

LIMITED, FULL = 1, 2
RGB, BT709, UNSPECIFIED, SMPTE170M = 0, 1, 2, 6
_WEIGHTS = {
    BT709: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    SMPTE170M: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}
"""`k_r` and `k_b` by H.273 code: BT.709, FCC, BT.470BG, SMPTE 170M, SMPTE 240M, BT.2020 (both kinds)."""
_PLANAR = re.compile(r"yuv[aj]?4\d\dp(9|1[0246])?(le)?")
_REPACKED = {"nv12": "yuv420p", "nv21": "yuv420p"}
"""Layouts that mix planes, as those that do not."""


@dataclass(frozen=True)
class Colours:
    """What a video says of its colours, as the codes of ITU-T H.273 that FFmpeg uses too."""

    range: int = 0
    """0 not said, 1 limited, 2 full."""
    matrix: int = UNSPECIFIED
    """0 R'G'B', 1 BT.709, 2 not said, 5 and 6 BT.601, 9 BT.2020."""
    primaries: int = UNSPECIFIED
    """2 not said, 1 BT.709."""
    transfer: int = UNSPECIFIED
    """2 not said, 1 BT.709."""

    def resolved(self, height: int) -> "Colours":
        """With range and matrix said, as most players guess them: limited; BT.709 from 720 rows on, else BT.601.

        Of R'G'B', those of the Y'CbCr that it would be written as.
        """
        guess = BT709 if height >= 720 else SMPTE170M
        if self.matrix == RGB:
            return replace(self, range=LIMITED, matrix=guess)
        matrix = guess if self.matrix in (UNSPECIFIED, 3) else self.matrix
        return replace(self, range=self.range or LIMITED, matrix=matrix)

    @property
    def known(self) -> bool:
        """Whether the matrix is one that can be converted."""
        return self.matrix in (RGB, UNSPECIFIED, 3) or self.matrix in _WEIGHTS


def colours_of(frame: Any, context: Any) -> Colours:
    """What a decoded frame and its codec's context say of the colours."""
    matrix = RGB if frame.format.is_rgb or frame.format.has_palette else int(frame.colorspace)
    full = frame.format.name.startswith("yuvj")
    return Colours(FULL if full else int(frame.color_range), matrix, context.color_primaries, context.color_trc)


def to_rgb(frame: Any, colours: Colours) -> Float[Tensor, "3 h w"]:
    """A decoded frame in [0, 1], not turned. `colours` are resolved."""
    layout = frame.format
    bits = layout.components[0].bits
    if layout.name.startswith("gray"):
        # The scaler fills 16 bits by repeating those that there are, so that 65535 is white.
        grey = _plane(frame.reformat(format="gray16le"), 0, np.uint16)[..., 0] / 65535
        grey = (grey * 255 - 16) / 219 if frame.color_range == LIMITED else grey
        return grey.clamp(0, 1).expand(3, -1, -1)
    if layout.is_rgb or layout.has_palette or len(layout.components) < 3 or layout.name.startswith("xyz"):
        name, depth = ("rgb24", np.uint8) if bits <= 8 else ("rgb48le", np.uint16)
        pixels = _plane(frame.reformat(format=name), 0, depth, channels=3) / np.iinfo(depth).max
        return pixels.permute(2, 0, 1).contiguous()
    if not _PLANAR.fullmatch(layout.name):
        same = {"src_color_range": colours.range, "dst_color_range": colours.range}
        frame = frame.reformat(format=_REPACKED.get(layout.name, "yuv444p"), **same)
        bits = frame.format.components[0].bits
    codes = [_plane(frame, plane, np.uint8 if bits == 8 else np.uint16)[..., 0] for plane in range(3)]
    return from_codes(torch.stack([codes[0], *(_spread(code, codes[0].shape) for code in codes[1:])]), colours, bits)


def _spread(chroma: Float[Tensor, "_h _w"], size: torch.Size) -> Float[Tensor, "h w"]:
    """Chroma at the luma's resolution; the last sample of an odd side covers one pixel."""
    down, across = (round(side / of) for side, of in zip(size, chroma.shape, strict=True))
    if (down, across) == (1, 1):
        return chroma
    wide = interpolate(chroma[None, None], scale_factor=(down, across), mode="bilinear", align_corners=False)
    return wide[0, 0, : size[0], : size[1]]


def from_codes(codes: Float[Tensor, "3 h w"], colours: Colours, bits: int = 8) -> Float[Tensor, "3 h w"]:
    """Codes Y', Cb, Cr of `bits` bits to R'G'B', clamped to [0, 1]."""
    k_r, k_b = _WEIGHTS[colours.matrix]
    black, luma, chroma = _scales(colours, bits)
    y, p_b, p_r = (codes[0] - black) / luma, *((codes[1:] - 2 ** (bits - 1)) / chroma)
    r, b = y + 2 * (1 - k_r) * p_r, y + 2 * (1 - k_b) * p_b
    return torch.stack([r, (y - k_r * r - k_b * b) / (1 - k_r - k_b), b]).clamp(0, 1)


def to_codes(image: Float[Tensor, "3 h w"], colours: Colours) -> Float[Tensor, "3 h w"]:
    """R'G'B', clamped to [0, 1], to codes Y', Cb, Cr of 8 bits, not rounded."""
    k_r, k_b = _WEIGHTS[colours.matrix]
    black, luma, chroma = _scales(colours, 8)
    r, g, b = image.clamp(0, 1)
    y = k_r * r + (1 - k_r - k_b) * g + k_b * b
    return torch.stack(
        [black + luma * y, 128 + chroma * (b - y) / (2 - 2 * k_b), 128 + chroma * (r - y) / (2 - 2 * k_r)]
    )


def to_frame(image: Float[Tensor, "3 h w"], colours: Colours, layout: str) -> Any:
    """A picture in [0, 1] as PyAV's frame of 8 bits, `layout` being yuv420p or yuv444p; `colours` are resolved."""
    import av

    codes = to_codes(image.detach().float().cpu(), colours)
    planes = [codes[0], *codes[1:]]
    if layout == "yuv420p":
        height, width = image.shape[1:]
        even = pad(codes[None, 1:], (0, width % 2, 0, height % 2), mode="replicate")
        planes[1:] = avg_pool2d(even, 2)[0]
    frame = av.VideoFrame(image.shape[2], image.shape[1], layout)
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)  # lines are padded
        rows[:, : plane.width] = values.round().clamp(0, 255).byte().numpy()
        plane.update(rows.tobytes())
    return frame


def _scales(colours: Colours, bits: int) -> tuple[int, int, int]:
    """Code of black, codes from black to white, codes of chroma from -1/2 to 1/2."""
    if colours.range == FULL:
        return 0, 2**bits - 1, 2**bits - 1
    return 16 * 2 ** (bits - 8), 219 * 2 ** (bits - 8), 224 * 2 ** (bits - 8)


def _plane(frame: Any, index: int, depth: type, channels: int = 1) -> Float[Tensor, "h w channels"]:
    plane = frame.planes[index]
    rows = np.frombuffer(plane, depth).reshape(plane.height, -1)[:, : plane.width * channels]
    return torch.from_numpy(rows.astype(np.float32)).reshape(plane.height, plane.width, channels)
