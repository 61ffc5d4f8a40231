"""Where a run stands: the part of its state that is neither weights nor pictures.

A checkpoint keeps it (`state`), and together with the run's `edits` folder it resumes exactly.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from csd_nerf.scenes.edit_options import EditPipelineConfig, Instruction
from csd_nerf.scenes.edit_schedule import EditSchedule

ORIGINAL = 0
"""In `edited_in`: the view shows its photo. Rounds count from 1."""


@dataclass(frozen=True)
class Pace:
    """How much was done, and how long it took."""

    steps: int = 0
    """NeRF steps."""
    rounds: int = 0
    """Rounds of edits."""
    nerf_seconds: float = 0.0
    """Time spent on NeRF steps, pauses left out."""
    edit_seconds: float = 0.0
    """Time spent in rounds."""

    def since(self, earlier: "Pace") -> "Pace":
        """What was done after `earlier`."""
        return Pace(
            self.steps - earlier.steps,
            self.rounds - earlier.rounds,
            self.nerf_seconds - earlier.nerf_seconds,
            self.edit_seconds - earlier.edit_seconds,
        )


@dataclass
class EditSession:
    """Progress of a run through its two phases: train the scene on the photos, then edit it (CSD C.3)."""

    schedule: EditSchedule
    """Which views are edited next, and when."""
    scene_steps: int
    """NeRF steps of the scene phase."""
    flags: Instruction
    """The instruction as the command line gave it."""
    instruction: Instruction
    """The instruction of the next round; the viewer changes it."""
    phase: Literal["scene", "edit"] = "scene"
    """What the NeRF is trained on."""
    scene_done: int = 0
    """NeRF steps made in the scene phase."""
    edit_done: int = 0
    """NeRF steps made in the edit phase."""
    prompt_views: int = 0
    """Views edited under the present prompt, each as often as it was."""
    edited_in: list[int] = field(default_factory=list)
    """For each training view the round whose picture it shows."""
    paused: bool = False
    """Whether rounds are held back."""
    restore_requested: bool = False
    """Whether all views should show their photos from the next step on."""
    nerf_seconds: float = 0.0
    """Time spent on NeRF steps, pauses left out and earlier runs of a resumed one included."""
    edit_seconds: float = 0.0
    """Time spent in rounds, those of earlier runs included."""
    network_samples: int = 0
    """Rows through the prior's network in finished rounds, those of earlier runs included."""
    by_pass: bool = False
    """Whether rounds are so many that the run is saved and told by the pass, see `edit_rhythm`."""
    choices: dict[str, Any] = field(default_factory=dict)
    """The other flags that decide how a run edits."""
    earlier: "Pace" = field(default_factory=lambda: Pace())
    """What was done before this process, maybe on another machine: no measure of how long the rest takes."""

    @classmethod
    def begin(cls, config: EditPipelineConfig, views: int) -> "EditSession":
        """The session of a run from scratch."""
        pace = config.pace()
        return cls(
            schedule=EditSchedule(views, pace.edit_batch_size, pace.edit_every, config.seed),
            scene_steps=config.scene_steps,
            flags=config.instruction(),
            instruction=config.instruction(),
            edited_in=[ORIGINAL] * views,
            by_pass=pace.by_pass,
            choices=config.choices(),
        )

    @property
    def rounds(self) -> int:
        """Rounds finished."""
        return self.schedule.rounds

    @property
    def prompt_passes(self) -> int:
        """Passes over the views that the prompt has had: whole ones, so that the views of a pass are told the same."""
        return self.prompt_views // self.schedule.views

    @property
    def edited_views(self) -> int:
        """Views that show an edit."""
        return sum(number != ORIGINAL for number in self.edited_in)

    @property
    def next_is_told(self) -> bool:
        """Whether the next round gets a contact sheet and a line on the terminal, with those before it."""
        return not self.by_pass or self.schedule.ends_pass

    @property
    def pace(self) -> Pace:
        """What was done in all, earlier runs included."""
        return Pace(self.scene_done + self.edit_done, self.rounds, self.nerf_seconds, self.edit_seconds)

    @property
    def pace_here(self) -> Pace:
        """What was done in this process."""
        return self.pace.since(self.earlier)

    def count_step(self, seconds: float) -> None:
        """Account for one NeRF step."""
        self.nerf_seconds += seconds
        if self.phase == "scene":
            self.scene_done += 1
        else:
            self.edit_done += 1
            self.schedule.steps_since_round += 1

    @property
    def scene_finished(self) -> bool:
        """Whether the scene phase should end now; asking for a round ends it early, but not before its first step."""
        asked = self.schedule.requested and self.scene_done > 0
        return self.phase == "scene" and (self.scene_done >= self.scene_steps or asked)

    def round_due(self, edit_steps: int) -> bool:
        """Whether a round should run now, if the NeRF has `edit_steps` steps to learn from all rounds."""
        if self.phase == "scene" or self.edit_done >= edit_steps:
            return False
        return self.schedule.requested or (self.schedule.due and not self.paused)

    def use(self, instruction: Instruction) -> None:
        """Take the instruction of the next round. A new prompt begins a pass: each view gets all of its passes."""
        if instruction.prompt != self.instruction.prompt:
            self._begin_prompt()
        self.instruction = instruction

    def finish_round(self, views: list[int], seconds: float, network_samples: int) -> None:
        """Account for a round whose pictures are in the training set."""
        self.schedule.finish_round()
        self.prompt_views += len(views)
        for view in views:
            self.edited_in[view] = self.schedule.rounds
        self.edit_seconds += seconds
        self.network_samples += network_samples

    def forget_edits(self) -> None:
        """All views show their photos again; the next round begins a new pass."""
        self.edited_in = [ORIGINAL] * len(self.edited_in)
        self._begin_prompt()
        self.restore_requested = False

    def _begin_prompt(self) -> None:
        self.schedule.new_pass()
        self.prompt_views = 0

    def remaining_steps(self, edit_steps: int) -> int:
        """NeRF steps until the end of the run, the edit phase taking `edit_steps` in all."""
        scene = max(0, self.scene_steps - self.scene_done) if self.phase == "scene" else 0
        return scene + max(0, edit_steps - self.edit_done)

    def rounds_left(self, edit_steps: int) -> int:
        """Rounds until the end of the run, as far as the schedule decides."""
        left = max(0, edit_steps - self.edit_done)
        if left == 0:
            return 0
        return max(0, -(-(left - self._until_round) // self.schedule.every))

    def rounds_for(self, passes: int) -> int:
        """Rounds until the prompt has had that many passes."""
        whole, part = divmod(max(0, passes * self.schedule.views - self.prompt_views), self.schedule.views)
        return whole * self.schedule.rounds_per_pass + -(-part // self.schedule.batch_size)

    def steps_for(self, rounds: int) -> int:
        """Edit steps of a run in which that many more rounds are made, each with as many NeRF steps after it."""
        return self.edit_done + self._until_round + rounds * self.schedule.every

    @property
    def _until_round(self) -> int:
        """NeRF steps until the next round."""
        return 0 if self.rounds == 0 else max(0, self.schedule.every - self.schedule.steps_since_round)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "schedule": self.schedule.state(),
            "phase": self.phase,
            "scene_done": self.scene_done,
            "edit_done": self.edit_done,
            "prompt_views": self.prompt_views,
            "edited_in": list(self.edited_in),
            "flags": self.flags.to_state(),
            "instruction": self.instruction.to_state(),
            "choices": dict(self.choices),
            "paused": self.paused,
            "nerf_seconds": self.nerf_seconds,
            "edit_seconds": self.edit_seconds,
            "network_samples": self.network_samples,
        }

    def restore(self, state: dict[str, Any], *, keep_pause: bool) -> None:
        """Continue from `state()`.

        What the viewer had changed stays, unless the command line now says something else than it did then. Paused
        edits stay so if `keep_pause`: without a viewer nobody could let them go on. Raises `ValueError` if the state
        belongs to another number of views.
        """
        self.schedule.restore(state["schedule"])
        self.phase = state["phase"]
        self.scene_done, self.edit_done = int(state["scene_done"]), int(state["edit_done"])
        self.edited_in = [int(number) for number in state["edited_in"]]
        self.paused = bool(state["paused"]) and keep_pause
        self.nerf_seconds, self.edit_seconds = float(state["nerf_seconds"]), float(state["edit_seconds"])
        self.network_samples = int(state.get("network_samples", 0))  # of a version that did not count: see the record
        self.earlier = self.pace
        then = Instruction(**state["instruction"])
        if Instruction(**state["flags"]) == self.flags:
            self.instruction = then
        if then.prompt != self.instruction.prompt:
            self._begin_prompt()
        elif "prompt_views" in state:
            self.prompt_views = int(state["prompt_views"])
        else:  # of a version that counted rounds
            self.prompt_views = int(state["prompt_rounds"]) * self.schedule.views // self.schedule.rounds_per_pass

    def changed_flags(self, state: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Names of the flags that differ from those of the run that left `state`, with the value then and now."""
        then = {**state["flags"], **state.get("choices", {})}
        now = {**self.flags.to_state(), **self.choices}
        return {name: (then[name], now[name]) for name in now if name in then and then[name] != now[name]}
