"""The panel of an object that grows, in nerfstudio's viewer; see `csd_nerf.scenes.viewer_panel` for how it works."""

import math
from typing import Any

import numpy as np
import viser.transforms as vtf
from nerfstudio.viewer.viewer_elements import ViewerCheckbox, ViewerText
from torch import nn

from csd_nerf.scenes.generation.cameras import OrbitViews
from csd_nerf.scenes.generation.options import Wish
from csd_nerf.scenes.viewer_panel import ViewerMarkdown, ViewerQuantity

_SCALE = 10.0
"""nerfstudio's VISER_NERFSTUDIO_SCALE_RATIO; its module takes a second to import."""


class GenerationPanel(nn.Module):
    """Controls of a run that makes an object. It has no parameters and leaves no trace in checkpoints."""

    def __init__(self, wish: Wish) -> None:
        super().__init__()
        self._known = wish
        self.a_prompt = ViewerText("Prompt", wish.prompt, hint="What to make; used from the next step on")
        self.b_negative_prompt = ViewerText("Negative prompt", wish.negative_prompt, hint="What to stay away from")
        self.c_guidance_scale = ViewerQuantity(
            "Guidance", wish.guidance_scale, 0.5, 0.0, "Higher follows the prompt more strongly"
        )
        self.d_lock_camera = ViewerCheckbox(
            "Lock camera at training view", False, hint="See the object from where the prior sees it in each step"
        )
        self.e_progress = ViewerMarkdown("Progress", "")

    def read(self) -> Wish:
        """The wish that the panel shows; a number field that was emptied counts as unchanged."""
        scale: Any = self.c_guidance_scale.value
        usable = isinstance(scale, (int, float)) and math.isfinite(scale)
        return Wish(
            self.a_prompt.value, self.b_negative_prompt.value, float(scale) if usable else self._known.guidance_scale
        )

    def show(self, wish: Wish) -> None:
        """Make the panel show a wish."""
        self._known = wish
        self.a_prompt.value = wish.prompt
        self.b_negative_prompt.value = wish.negative_prompt
        self.c_guidance_scale.value = wish.guidance_scale

    @property
    def locked(self) -> bool:
        """Whether the viewer's camera should follow the training."""
        return bool(self.d_lock_camera.value)

    def say(self, text: str) -> None:
        """Show where the run stands."""
        self.e_progress.content = text


def follow(server: Any, views: OrbitViews) -> None:
    """Put the cameras of all clients of a viser server where the first view of a step is."""
    for client in server.get_clients().values():
        _place(client, views)


def welcome(server: Any, views: OrbitViews) -> None:
    """Let clients of a viser server begin at the first of some views: its own first place is within the object."""

    @server.on_client_connect
    def _(client: Any) -> None:
        _place(client, views)


def _place(client: Any, views: OrbitViews) -> None:
    pose = views.cameras.camera_to_worlds[0].cpu().numpy()
    # viser's cameras look along +z, nerfstudio's along -z.
    turn = vtf.SO3.from_matrix(pose[:3, :3]) @ vtf.SO3.from_x_radians(np.pi)
    with client.atomic():
        client.camera.wxyz = turn.wxyz
        client.camera.position = pose[:3, 3] * _SCALE
        client.camera.look_at = np.zeros(3)  # what the mouse turns around
        client.camera.fov = 2 * math.atan(views.size / (2 * float(views.cameras.fx[0])))
