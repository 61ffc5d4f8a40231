"""The panel of `csd-edit` in nerfstudio's viewer.

nerfstudio finds `ViewerElement`s on `nn.Module` attributes without a leading underscore and shows them in the
alphabetical order of the attributes' names, hence the letters. Buttons only leave a wish: their callbacks run in the
viewer's thread, the trainer fulfils the wish between two NeRF steps.
"""

import base64
import io
import math
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


class ViewerQuantity(ViewerNumber[float]):
    """A number field with a step of its own: nerfstudio's has that of its first value, whole numbers for 4.0."""

    def __init__(self, name: str, value: int | float, step: int | float, least: int | float, hint: str) -> None:
        super().__init__(name, value, hint=hint)
        self.step, self.least = step, least

    def _create_gui_handle(self, viser_server: ViserServer) -> None:
        self.gui_handle = viser_server.gui.add_number(
            self.name, self.default_value, min=self.least, step=self.step, hint=self.hint
        )


class ViewerHintedButton(ViewerButton):
    """A button with a hint; nerfstudio's have none."""

    def __init__(self, name: str, on_click: Callable[[Any], Any], hint: str) -> None:
        super().__init__(name, on_click)
        self.hint = hint

    def _create_gui_handle(self, viser_server: ViserServer) -> None:
        self.gui_handle = viser_server.gui.add_button(self.name, hint=self.hint)


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
        self.c_guidance_scale = ViewerQuantity(
            "Guidance", start.guidance_scale, 0.1, 0.0, "Higher follows the prompt more strongly; 3 to 15 is usual"
        )
        image_scale = image_guidance_scale if start.image_guidance_scale is None else start.image_guidance_scale
        self.d_image_guidance_scale = ViewerQuantity(
            "Image guidance", image_scale, 0.1, 0.0, "Higher keeps more of the photo; 1.5 to 5 is usual"
        )
        self.e_edit_steps = ViewerQuantity("Edit steps", start.edit_steps, 1, 1, "Steps of a round")
        self.f_edit_now = ViewerHintedButton(
            "Edit now", self._wish("requested"), "A round at once; before the first one, training on the photos ends"
        )
        self.g_pause_edits = ViewerCheckbox(
            "Pause edits", session.paused, cb_hook=self._pause, hint="Hold rounds back; a running one is finished"
        )
        self.h_restore_originals = ViewerHintedButton(
            "Restore originals", self._wish("restore_requested"), "Train on the photos again, until the next round"
        )
        self.i_progress = ViewerMarkdown("Progress", "")
        self.j_contact_sheet = ViewerMarkdown("Last round", "")

    def read(self) -> Instruction:
        """The instruction that the panel shows; a number field that was emptied counts as unchanged."""
        known = self._session.instruction
        image_scale = _number(self.d_image_guidance_scale, known.image_guidance_scale)
        untouched = image_scale == self._default_image_guidance_scale
        return Instruction(
            prompt=self.a_prompt.value,
            negative_prompt=self.b_negative_prompt.value,
            guidance_scale=_number(self.c_guidance_scale, known.guidance_scale),
            image_guidance_scale=None if untouched and known.image_guidance_scale is None else image_scale,
            edit_steps=round(_number(self.e_edit_steps, known.edit_steps)),
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
            ends = name == "requested" and self._session.phase == "scene"
            what = "Training on the photos ends, and a round begins," if ends else "Will be done"
            self.say(f"{what} after the current step or round; press Resume Training if training is paused.")

        return leave

    def end(self) -> None:
        """Say that nothing more will be done."""
        self._ended = True
        self.say("Training has ended: start a run with --load-dir to go on.")

    def _pause(self, checkbox: ViewerCheckbox) -> None:
        self._session.paused = bool(checkbox.value)


def _number(field: ViewerNumber[float], otherwise: int | float | None) -> Any:
    """The field's value, or `otherwise` where the browser sends none."""
    value = field.value
    return value if isinstance(value, (int, float)) and math.isfinite(value) else otherwise
