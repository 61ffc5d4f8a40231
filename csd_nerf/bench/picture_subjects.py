"""How the benchmarks of panoramas and of videos speak."""

from csd_nerf.bench import picture_methods
from csd_nerf.bench.picture_methods import FRAMES_PER_SECOND, PictureProtocol
from csd_nerf.bench.subject import STAND_IN, STRENGTH, TO_THE_TRUTH, Note, Panel, Subject

_OUTSIDE = Note(
    "- **change outside**: mean absolute difference to the unedited picture, as the prior's autoencoder shows it, "
    "where the true edit changes nothing; empty where it changes everything."
)
_SECONDS = "**seconds**: the edit, from encoding to decoding, on the threads of one worker."


def _panoramas(protocol: PictureProtocol) -> str:
    budget, size = protocol.budget, protocol.size
    return (
        f"each of {budget.parts} objects around one camera, {size * budget.parts} x {size} pixels. Every method spends "
        f"{budget.samples_per_part} UNet samples on each of the {budget.parts} patches that lie side by side on it, as "
        "nearly as its steps allow (overlapping patches count by their area). An edit is one of all objects; where it "
        "is ambiguous, all of them show the same choice in a true edit."
    )


def _videos(protocol: PictureProtocol) -> str:
    budget, size = protocol.budget, protocol.size
    return (
        f"{budget.parts} frames of {size} x {size} pixels each, {FRAMES_PER_SECOND:g} in a second, along an arc around "
        f"the object. Every method spends {budget.samples_per_part} UNet samples on each frame, as nearly as its steps "
        "allow."
    )


PANORAMA = Subject(
    name="panorama",
    noun="panorama",
    title="Edits of toy panoramas against their true edits",
    made_of="patch",
    methods=picture_methods.PANORAMA,
    deterministic=("PSNR", "SSIM", "LPIPS", "ST-LPIPS", "seam visibility", "change outside", "edit strength"),
    ambiguous=("object agreement", "seam visibility", "edit strength", "PSNR", "change outside"),
    about=_panoramas,
    legend=(
        TO_THE_TRUTH,
        STAND_IN,
        Note(
            "- **seam visibility**: jump of the change that the edit makes, at the borders of patches side by side, "
            "over that beside the borders, where the true edit's change is smooth: 1 or less is invisible, more is a "
            "seam."
        ),
        _OUTSIDE,
        STRENGTH,
        Note(f"- **samples per patch**: UNet samples that the run counted, per patch side by side. {_SECONDS}"),
        Note(
            "- **object agreement**: share of the objects that show the commonest colour, judged by the nearest true "
            "edit of each; an object that shows none counts against it.",
            "object agreement",
        ),
    ),
    panels=(
        Panel(False, "change outside", "unedited region: mean change", "Deterministic instructions"),
        Panel(True, "object agreement", "share of objects that agree", "Ambiguous instructions"),
    ),
)
"""Several toy scenes around one camera."""

VIDEO = Subject(
    name="video",
    noun="video",
    title="Edits of toy videos against their true edits",
    made_of="frame",
    methods=picture_methods.VIDEO,
    deterministic=("PSNR", "SSIM", "LPIPS", "ST-LPIPS", "warp error", "change outside", "edit strength"),
    ambiguous=("frame agreement", "colour spread", "warp error", "edit strength", "PSNR", "change outside"),
    about=_videos,
    legend=(
        TO_THE_TRUTH,
        STAND_IN,
        _OUTSIDE,
        STRENGTH,
        Note(
            "- **warp error**: mean difference of the edited part between consecutive frames, through the surface of "
            "the nearest true edit. What moves with the camera, such as highlights and the lines of a sketch, gives "
            "the true edit more than 0, and to be below it is no merit; doing nothing keeps the source's own."
        ),
        Note(f"- **samples per frame**: UNet samples that the run counted, per frame. {_SECONDS}"),
        Note(
            "- **frame agreement**: share of the frames that show the commonest colour, judged by the nearest true "
            "edit of each; a frame that shows none counts against it. **colour spread**: standard deviation over "
            "frames of the mean colour of the edited part.",
            "frame agreement",
        ),
    ),
    panels=(
        Panel(False, "warp error", "edited part: warp error over time", "Deterministic instructions"),
        Panel(True, "frame agreement", "share of frames that agree", "Ambiguous instructions"),
    ),
)
"""A camera that goes around a toy scene."""
