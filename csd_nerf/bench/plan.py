"""Which cells a benchmark has. A cell's key is a hash of everything that decides its result."""

import hashlib
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from csd_nerf.bench import effective
from csd_nerf.bench.methods import METHODS, UNEDITED, Budget, Method
from csd_nerf.bench.picture_methods import PictureProtocol
from csd_nerf.bench.scenes import Instruction, instructions, source_caption, target_caption
from csd_nerf.bench.subject import SCENES, Subject
from csd_nerf.toyworld.scene import HELD_OUT_SEEDS, Scene, scene_from_seed

CELL_FORMAT = 3
"""Raise it when `compute`, `measure` or the toy world change what they give for the same settings."""


Precision = Literal["auto", "fp32", "fp16", "bf16"]
_ADDRESS_OR_UNRELATED = r" at 0x[0-9a-f]+|, source_bank(_gigabytes)?=[^,)]*"
"""What in the text of a configuration decides no result."""


@dataclass(frozen=True)
class Protocol:
    """Sizes and budgets that all cells of a benchmark share."""

    scene_steps: int
    """NeRF steps on the photos, once for each scene."""
    budget: Budget
    held_out: int = 8
    """Views that no training sees; they are measured."""
    size: int = 64
    """Pixels along a side."""


FULL = Protocol(1000, Budget(nerf_steps=400, samples_per_view=240, rounds=4, batch=20, views=40))
"""Views enough for scenes that 24 leave as clouds (benchmarks/reconstruction.py); every view is edited twice."""
QUICK = Protocol(1000, Budget(nerf_steps=320, samples_per_view=240, rounds=4, batch=12, views=24))
"""For two cores and a quarter of an hour. From 24 views some scenes come out as clouds in the air, which edits then
paint: the report says which."""


@dataclass(frozen=True)
class Cell:
    """One computation."""

    spec: Mapping[str, Any]
    """What decides its result, in JSON's types; `compute` needs nothing else but the results of `needs`."""
    needs: tuple[str, ...] = ()
    """Keys of cells whose results it takes."""
    where: Mapping[str, Any] = field(default_factory=dict)
    """What may differ without another result: where the prior's folder is on this machine."""
    label: str = ""
    """For people."""
    name: str = ""
    """Of an edit: the instruction's name, which is the same for all scenes."""

    @property
    def kind(self) -> Literal["scene", "truth", "edit"]:
        """What it computes."""
        return self.spec["kind"]

    @property
    def key(self) -> str:
        """Hash of `spec` and `needs`."""
        text = json.dumps([self.spec, self.needs], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Plan:
    """What is to be computed."""

    protocol: Protocol | PictureProtocol
    cells: tuple[Cell, ...]
    """Those that others need come first; whole scenes one after the other."""
    prior: str
    left_out: tuple[str, ...] = ()
    """What could not be planned, and why."""
    subject: Subject = SCENES
    """What is edited."""

    def edits(self) -> list[Cell]:
        """The cells that the tables are made of."""
        return [cell for cell in self.cells if cell.kind == "edit"]


@dataclass(frozen=True)
class Choice:
    """What the user asks for; checked by `make_plan`."""

    scenes: tuple[int, ...]
    instructions: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    guidance: tuple[float | None, ...] = (None,)
    """Guidance scales; None is the method's default."""
    prior: str = "toy"
    precision: Precision = "auto"
    """Of the prior's networks; the plan says what `auto` comes to."""


def make_plan(choice: Choice, protocol: Protocol) -> Plan:
    """All cells of a benchmark. Raises `ValueError`, naming the flag, before anything is computed."""
    check_choice(choice, METHODS)
    choice = replace(choice, precision=precision_of(choice.precision))
    methods = [method for method in METHODS.values() if method.name in choice.methods]
    left_out: list[str] = []
    made: list[Cell] = []
    prior = weights_hash(choice.prior)
    for seed in choice.scenes:
        scene = scene_from_seed(seed)
        shared = {"format": CELL_FORMAT, "scene": asdict(scene), "size": protocol.size}
        shared |= {"views": protocol.budget.views, "held_out": protocol.held_out}
        base = Cell(
            {"kind": "scene", **shared, "steps": protocol.scene_steps, "configuration": _configuration()},
            where={"prior": choice.prior},
            label=f"scene {seed}",
        )
        made.append(base)
        for asked in instructions(choice.instructions, scene):
            truth = Cell({"kind": "truth", **shared, "instruction": asked.text}, label=f"truth {seed} {asked.text}")
            made.append(truth)
            for method in methods:
                if method.captions and target_caption(scene, asked) is None:
                    left_out.append(f"{method.name} with '{asked.text}': no caption leaves it open")
                    continue
                made += _edits(method, scene, asked, (base, truth), choice, protocol, prior)
    unique = {cell.key: cell for cell in made}
    return Plan(protocol, tuple(unique.values()), prior_shown(choice), tuple(dict.fromkeys(left_out)))


def prior_shown(choice: Choice) -> str:
    """The prior as a report names it."""
    return f"{choice.prior} ({weights_hash(choice.prior)}, {choice.precision})"


def precision_of(precision: Precision) -> Precision:
    """What `auto` comes to on this machine, as for csd-edit: fp16 on a GPU, bf16 on a CPU made for it, else fp32.

    Known when cells are planned, since it decides their results.
    """
    import torch

    from csd_nerf.priors import auto_precision

    chosen = auto_precision(precision, "auto")
    if chosen == "auto":
        return "fp16" if torch.cuda.is_available() else "fp32"
    return chosen


def _edits(
    method: Method,
    scene: Scene,
    asked: Instruction,
    inputs: tuple[Cell, Cell],
    choice: Choice,
    protocol: Protocol,
    prior: str,
) -> list[Cell]:
    """One method's cells for one instruction."""
    base, truth = inputs
    about = {
        **{name: base.spec[name] for name in ("format", "scene", "size", "views", "held_out")},
        "kind": "edit",
        "method": method.name,
        "instruction": asked.text,
        "ambiguous": asked.ambiguous,
    }
    needs = (base.key, truth.key)
    label = f"{scene.seed} {asked.text}: {method.name}"
    if method.name == UNEDITED:
        return [Cell({**about, "seed": 0, "guidance": None, "settings": None}, needs, {}, label, asked.name)]
    settings = {**method.spend(protocol.budget), "prompt": asked.text, "prior_dtype": choice.precision}
    if method.captions:
        settings |= {"prompt": target_caption(scene, asked), "source_prompt": source_caption(scene)}
    made = []
    for seed in choice.seeds:
        for scale in choice.guidance:
            # A point of a sweep has one scale in all rounds.
            chosen = settings | ({} if scale is None else {"guidance_scale": scale, "guidance_first": 1.0})
            spec = {**about, "seed": seed, "guidance": scale, "settings": chosen, "prior": prior}
            spec |= {"nerf_steps": protocol.budget.nerf_steps, "configuration": _configuration()}
            spec["preset"] = effective.digest(chosen)
            said = label + ("" if scale is None else f", guidance {scale:g}") + (f", seed {seed}" if seed else "")
            made.append(Cell(spec, needs, {"prior": choice.prior}, said, asked.name))
    return made


def with_guidance(choice: Choice, scales: Sequence[float]) -> Choice:
    """The same benchmark at given guidance scales. Raises `ValueError` for a scale that cannot work."""
    for scale in scales:
        if not 0 < scale < 1000:
            raise ValueError(f"--sweep {scale:g}: give guidance scales above 0 (the paper has 3 5 7.5 10)")
    return replace(choice, guidance=tuple(dict.fromkeys(scales)))


def check_choice(choice: Choice, methods: Mapping[str, Method]) -> None:
    """Raise `ValueError`, naming the flag, for what cannot be planned."""
    check_prior(choice.prior)
    for flag, chosen in (
        ("--scenes", choice.scenes),
        ("--instructions", choice.instructions),
        ("--methods", choice.methods),
        ("--seeds", choice.seeds),
    ):
        if not chosen:
            raise ValueError(f"{flag} is empty: give at least one, or leave the flag out")
        if len(set(chosen)) < len(chosen):
            raise ValueError(f"{flag} names one twice: {' '.join(map(str, chosen))}")
    for seed in choice.scenes:
        if seed < HELD_OUT_SEEDS:
            raise ValueError(
                f"--scenes {seed} may be a scene that the prior was trained on: give seeds from {HELD_OUT_SEEDS} on"
            )
    for name in choice.methods:
        if name not in methods:
            raise ValueError(f"--methods {name} is unknown: choose from {', '.join(methods)}")
    for seed in choice.seeds:
        if seed < 0:
            raise ValueError(f"--seeds {seed}: give 0 or more")


def check_prior(prior: str) -> None:
    """Raise `ValueError`, naming the flag, for what is neither `toy` nor the folder of a pipeline."""
    if prior != "toy" and not (Path(prior) / "model_index.json").is_file():
        raise ValueError(
            f"--prior {prior} is no folder with a model_index.json: give toy, or a local folder in diffusers layout "
            "(download what is on a hub first)"
        )


@lru_cache
def _configuration() -> str:
    """Hash of csd-edit-lite's defaults: a changed default is another experiment.

    How it edits is none of them: `preset` in a cell's key says what comes of that, so that another noise level of
    csd-edit leaves the scenes and the dataset update as they are. Nor is the noise, which every method that edits
    several views together names.
    """
    from csd_nerf.scenes.edit_config import lite_config
    from csd_nerf.scenes.edit_options import EditPipelineConfig

    config, plain = lite_config(), EditPipelineConfig()
    elsewhere = {name: getattr(plain, name) for name in effective.DIGESTED}
    pipeline = replace(config.pipeline, noise="independent", **elsewhere)
    return configuration_hash(pipeline, config.optimizers)


def configuration_hash(pipeline: Any, optimizers: Any) -> str:
    """Hash of a method's defaults: a changed default is another experiment."""
    text = re.sub(_ADDRESS_OR_UNRELATED, "", repr(pipeline) + repr(optimizers))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def check_machine(spec: Mapping[str, Any], where: Mapping[str, Any]) -> None:
    """Raise `RuntimeError` where a cell would not become what its key says: other defaults, or another prior."""
    for name, here in (
        ("configuration", _configuration),
        ("preset", lambda: effective.digest(spec["settings"])),
        ("prior", lambda: weights_hash(where["prior"])),
    ):
        if name in spec and spec[name] != here():
            what = f"other weights of {where['prior']}" if name == "prior" else "another version of csd_nerf"
            raise RuntimeError(
                f"this machine ({platform.node()}) has {what} than the one that plans the cells: with --engine ray all "
                "machines need the same"
            )


@lru_cache
def weights_hash(prior: str) -> str:
    """Hash of a prior's files: `toy`, or a local folder. Any other name stands for itself."""
    from csd_nerf.priors.registry import toy_folder

    folder = toy_folder() if prior == "toy" else Path(prior)
    if not folder.is_dir():
        return prior
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".safetensors", ".json", ".txt") and path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]
