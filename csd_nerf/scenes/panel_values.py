"""What the viewer's panel says, as the instruction of the next round."""

from dataclasses import asdict, replace

from csd_nerf.distill.editing import check_edit
from csd_nerf.distill.types import ImagePrior
from csd_nerf.scenes.edit_options import EditPipelineConfig, Instruction, renamed

_PANEL = {"guidance_scale": "Guidance", "image_guidance_scale": "Image guidance", "steps": "Edit steps"}
"""What the viewer's panel calls a field of `EditSettings`."""


def with_panel_values(
    config: EditPipelineConfig, wanted: Instruction, previous: Instruction, prior: ImagePrior | None = None
) -> tuple[Instruction, str]:
    """The instruction of the next round from what the viewer's panel says, and a complaint about what cannot work.

    A mistake in a field must not end a run of hours: that field then keeps its `previous` value, the others are used.
    What depends on the prior is checked if it is given.
    """
    chosen, complaints = previous, []
    for name in asdict(wanted):
        trial = replace(chosen, **{name: getattr(wanted, name)})
        if not trial.prompt.strip():
            complaints.append("The prompt is empty: the previous one is kept.")
            continue
        try:
            settings = replace(config, guidance_first=1.0).settings(trial)  # messages say what the panel says
            settings.validate() if prior is None else check_edit(prior, trial.prompt, settings)
        except ValueError as error:
            said = renamed(str(error), _PANEL.get)
            complaints.append(f"Not used: {said}; {getattr(previous, name)} is kept.")
        else:
            chosen = trial
    return chosen, " ".join(complaints)
