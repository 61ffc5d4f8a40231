"""The panel of `csd-edit` in nerfstudio's viewer.

nerfstudio finds `ViewerElement`s on `nn.Module` attributes without a leading underscore and shows them in the
alphabetical order of the attributes' names, hence the letters. Buttons only leave a wish: their callbacks run in the
viewer's thread, the trainer fulfils the wish between two NeRF steps.
"""

import base64
import io
from collections.abc import Callable
from typing import Any

from jaxtyping import UInt8
from nerfstudio.viewer.viewer_elements import (
    ViewerButton,
    ViewerCheckbox,
    ViewerElement,
    ViewerNumber,
    ViewerText,
)
from PIL import Image
from torch import Tensor, nn
from viser import GuiMarkdownHandle, ViserServer

from csd_nerf.scenes.edit_options import Instruction
from csd_nerf.scenes.edit_session import EditSession


class ViewerMarkdown(ViewerElement[str]):
    """Text or a picture in the panel; nerfstudio has no such element."""

    def __init__(self, name: str, content: str) -> None:
        super().__init__(name)
        self._content = content
        self._handle: GuiMarkdownHandle | None = None

    @property
    def content(self) -> str:
        """Markdown that is shown."""
        return self._content

    @content.setter
    def content(self, content: str) -> None:
        self._content = content
        if self._handle is not None:
            self._handle.content = content

    def _create_gui_handle(self, viser_server: ViserServer) -> None:
        self._handle = viser_server.gui.add_markdown(self._content)

    def install(self, viser_server: ViserServer) -> None:
        """Put it into the viewer's current folder."""
        self._create_gui_handle(viser_server)


class EditPanel(nn.Module):
    """Controls of a run that edits. It has no parameters and leaves no trace in checkpoints."""

    def __init__(self, session: EditSession, image_guidance_scale: float) -> None:
        super().__init__()
        self._session = session
        self._ended = False
        self._default_image_guidance_scale = image_guidance_scale
        start = session.instruction
        self.a_prompt = ViewerText("Prompt", start.prompt, hint="What to change; used from the next round on")
        self.b_negative_prompt = ViewerText("Negative prompt", start.negative_prompt, hint="What to stay away from")
        self.c_guidance_scale = ViewerNumber(
            "Guidance", start.guidance_scale, hint="Higher follows the prompt more strongly; 3 to 15 is usual"
        )
        image_scale = image_guidance_scale if start.image_guidance_scale is None else start.image_guidance_scale
        self.d_image_guidance_scale = ViewerNumber(
            "Image guidance", image_scale, hint="Higher keeps more of the photo; 1.5 to 5 is usual"
        )
        self.e_edit_steps = ViewerNumber("Edit steps", start.edit_steps, hint="CSD-Edit steps of a round")
        self.f_edit_now = ViewerButton("Edit now", self._wish("requested"))
        self.g_pause_edits = ViewerCheckbox(
            "Pause edits", session.paused, cb_hook=self._pause, hint="Hold rounds back; a running one is finished"
        )
        self.h_restore_originals = ViewerButton("Restore originals", self._wish("restore_requested"))
        self.i_progress = ViewerMarkdown("Progress", "")
        self.j_contact_sheet = ViewerMarkdown("Last round", "")

    def read(self) -> Instruction:
        """The instruction that the panel shows."""
        image_scale = float(self.d_image_guidance_scale.value)
        untouched = image_scale == self._default_image_guidance_scale
        known = self._session.instruction.image_guidance_scale
        return Instruction(
            prompt=self.a_prompt.value,
            negative_prompt=self.b_negative_prompt.value,
            guidance_scale=float(self.c_guidance_scale.value),
            image_guidance_scale=None if untouched and known is None else image_scale,
            edit_steps=int(self.e_edit_steps.value),
        )

    def show(self, instruction: Instruction) -> None:
        """Make the panel show an instruction."""
        self.a_prompt.value = instruction.prompt
        self.b_negative_prompt.value = instruction.negative_prompt
        self.c_guidance_scale.value = instruction.guidance_scale
        if instruction.image_guidance_scale is not None:
            self.d_image_guidance_scale.value = instruction.image_guidance_scale
        self.e_edit_steps.value = instruction.edit_steps
        self.g_pause_edits.value = self._session.paused

    def say(self, text: str) -> None:
        """Show where the run stands."""
        self.i_progress.content = text

    def show_contact_sheet(self, number: int, sheet: UInt8[Tensor, "h w 3"]) -> None:
        """Show the pictures of a round. The viewer shows them at most 240 pixels wide."""
        buffer = io.BytesIO()
        Image.fromarray(sheet.numpy()).save(buffer, format="JPEG", quality=85)
        data = base64.b64encode(buffer.getvalue()).decode()
        self.j_contact_sheet.content = f"**Round {number}**\n\n![round {number}](data:image/jpeg;base64,{data})"

    def _wish(self, name: str) -> Callable[[Any], None]:
        target = self._session.schedule if name == "requested" else self._session

        def leave(_: Any) -> None:
            if self._ended:
                return
            setattr(target, name, True)
            self.say("Will be done after the current step or round; press Resume Training if training is paused.")

        return leave

    def end(self) -> None:
        """Say that nothing more will be done."""
        self._ended = True
        self.say("Training has ended: start a run with --load-dir to go on.")

    def _pause(self, checkbox: ViewerCheckbox) -> None:
        self._session.paused = bool(checkbox.value)
