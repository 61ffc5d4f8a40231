"""How often, how many at a time and how long views are edited, where the flags leave it to the editor.

| editor          | NeRF steps between rounds | views a round | steps a round | kept and told    | from               |
|-----------------|---------------------------|---------------|---------------|------------------|--------------------|
| all that distil | the method's              | the method's  | the method's  | after each round | CSD C.2, C.3       |
| ip2p            | the method's              | the method's  | 100           | after each round | Brooks et al. 2023 |
| in2n            | 10                        | 1             | 20            | after each pass  | Haque et al. 2023  |

The method's are 2000, 16, 200 for `csd-edit`, and 175, 16, 60 for `csd-edit-lite`.

Rounds as short and as many as those of in2n must not each cost a checkpoint, a contact sheet and three lines on the
terminal: these come once a pass, and the checkpoints whenever nerfstudio saves one (--steps-per-save) and at the end.
The edited views are written in each round all the same, so that the run resumes exactly from its last checkpoint.
"""

from dataclasses import dataclass, replace
from typing import Any

from csd_nerf.distill.editors import Editor


@dataclass(frozen=True)
class EditRhythm:
    """Pace of the edits."""

    edit_every: int = 2000
    """NeRF steps between two rounds (CSD C.3)."""
    edit_batch_size: int = 16
    """Views in one round, at most (CSD C.3)."""
    edit_steps: int = 200
    """Steps in one round (CSD C.2: 200 to 500)."""
    by_pass: bool = False
    """Whether bookkeeping comes after each pass over the views instead of after each round."""

    def of(self, editor: Editor) -> "EditRhythm":
        """That of an editor, where this one is the method's."""
        return replace(self, **_OWN.get(editor, {}))


_OWN: dict[Editor, dict[str, Any]] = {
    "ip2p": {"edit_steps": 100},
    "in2n": {"edit_every": 10, "edit_batch_size": 1, "edit_steps": 20, "by_pass": True},
}
