"""Pictures, contact sheets and videos on disk. Files appear complete or not at all."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from csd_nerf.whole_files import in_place_when_done, write_atomically

_MARGIN, _BACKGROUND, _INK = 6, (255, 255, 255), (30, 30, 30)


def to_pil(image: Float[Tensor, "3 h w"]) -> Image.Image:
    """A picture in [0, 1] as 8-bit RGB."""
    return Image.fromarray((image.detach().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())


def write_deep_png(path: Path, planes: Sequence[Tensor] | Tensor) -> None:
    """Write three planes of colour (h w) in [0, 1], and perhaps one of opacity, with 16 bits a channel.

    Pillow writes no colour of 16 bits. Raises `ValueError` for a picture that a PNG cannot hold.
    """
    import cv2

    pixels = np.empty((*planes[0].shape, len(planes)), np.uint16)
    for channel, source in enumerate((2, 1, 0, 3)[: len(planes)]):  # OpenCV's blue comes first
        plane = planes[source].detach().double().cpu().clamp(0, 1) * 65535
        pixels[..., channel] = plane.round().numpy().astype(np.uint16)
    done, encoded = cv2.imencode(".png", pixels)
    if not done:
        raise ValueError(f"{path} could not be encoded as a PNG of 16 bits")

    def write(temporary: Path) -> None:
        temporary.write_bytes(encoded.tobytes())

    write_atomically(path, write)


def contact_sheet(rows: Sequence[tuple[str, Sequence[Float[Tensor, "3 _h _w"]]]], scale: int = 1) -> Image.Image:
    """Rows of pictures with their titles on the left.

    The first picture, enlarged `scale` times (Lanczos), sets the size of all cells. The others fill theirs as far as
    their aspect allows, in the middle. Raises `ValueError` if the first row is empty.
    """
    if not rows or not rows[0][1]:
        raise ValueError("a contact sheet needs at least one picture in its first row")
    height, width = rows[0][1][0].shape[-2:]
    cell_height, cell_width = height * scale, width * scale
    font = ImageFont.load_default(size=max(11, cell_height // 9))
    title_width = max(int(font.getlength(line)) for title, _ in rows for line in title.split("\n")) + 2 * _MARGIN
    columns = max(len(pictures) for _, pictures in rows)
    sheet = Image.new(
        "RGB",
        (title_width + columns * (cell_width + _MARGIN), _MARGIN + len(rows) * (cell_height + _MARGIN)),
        _BACKGROUND,
    )
    draw = ImageDraw.Draw(sheet)
    for i, (title, pictures) in enumerate(rows):
        top = _MARGIN + i * (cell_height + _MARGIN)
        draw.multiline_text((_MARGIN, top + cell_height // 2), title, fill=_INK, font=font, anchor="lm")
        for j, picture in enumerate(pictures):
            shrink = min(cell_width / picture.shape[-1], cell_height / picture.shape[-2])
            size = (max(1, round(picture.shape[-1] * shrink)), max(1, round(picture.shape[-2] * shrink)))
            left = title_width + j * (cell_width + _MARGIN)
            place = (left + (cell_width - size[0]) // 2, top + (cell_height - size[1]) // 2)
            sheet.paste(to_pil(picture).resize(size, Image.Resampling.LANCZOS), place)
    return sheet


def write_video(path: Path, frames: Iterable[Float[Tensor, "3 h w"]], fps: int = 24, scale: int = 1) -> None:
    """Write an MP4 (H.264, yuv420p, so that every player and browser shows it); odd sizes are trimmed by a pixel.

    Frames are taken one by one. Raises `ValueError` if there are none.
    """
    empty = True
    with growing_video(path, fps, scale) as add:
        for frame in frames:
            add(frame)
            empty = False
    if empty:
        raise ValueError(f"{path}: a video needs at least one frame")


@contextmanager
def growing_video(path: Path, fps: int = 24, scale: int = 1) -> Iterator[Callable[[Float[Tensor, "3 h w"]], None]]:
    """`write_video` of frames that come one after another: give `add(frame)`, which keeps none of them.

    Without a frame there is no file.
    """
    import av

    with ExitStack() as stack:
        opened: list[Any] = []

        def begin(frame: Float[Tensor, "3 h w"]) -> None:
            temporary = stack.enter_context(in_place_when_done(path))
            container = stack.enter_context(av.open(str(temporary), "w", format="mp4"))
            # x264's macroblock tree, and several threads, now and then make another file of the same frames.
            options = {"crf": "16", "preset": "medium", "x264-params": "no-mbtree=1"}
            stream: Any = container.add_stream("libx264", rate=fps, options=options)
            stream.height, stream.width = (side * scale // 2 * 2 for side in frame.shape[-2:])
            stream.pix_fmt = "yuv420p"
            stream.codec_context.thread_count = 1
            opened.extend((container, stream))

        def add(frame: Float[Tensor, "3 h w"]) -> None:
            if not opened:
                begin(frame)
            container, stream = opened
            picture = to_pil(frame)
            if scale != 1:
                picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.LANCZOS)
            array = np.ascontiguousarray(np.asarray(picture)[: stream.height, : stream.width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format="yuv420p")))

        yield add
        if opened:
            container, stream = opened
            container.mux(stream.encode())
