"""Which cells the benchmarks of panoramas and videos have."""

import hashlib
from dataclasses import asdict, replace
from typing import Any

from csd_nerf.bench.methods import UNEDITED, Method
from csd_nerf.bench.picture_edits import settings_of
from csd_nerf.bench.picture_methods import PictureProtocol
from csd_nerf.bench.picture_subjects import PANORAMA, VIDEO
from csd_nerf.bench.plan import Cell, Choice, Plan, check_choice, precision_of, prior_shown, weights_hash
from csd_nerf.bench.scenes import Instruction, instructions
from csd_nerf.bench.subject import Subject
from csd_nerf.toyworld.panorama import panorama_from_seed
from csd_nerf.toyworld.scene import scene_from_seed

PICTURE_CELL_FORMAT = 2
"""Raise it when `picture_compute` or the measures change what they give for the same settings."""


def make_panorama_plan(choice: Choice, protocol: PictureProtocol) -> Plan:
    """All cells of a benchmark of panoramas. Raises `ValueError`, naming the flag, before anything is computed."""
    return _plan(PANORAMA, choice, protocol)


def make_video_plan(choice: Choice, protocol: PictureProtocol) -> Plan:
    """All cells of a benchmark of videos. Raises `ValueError`, naming the flag, before anything is computed."""
    return _plan(VIDEO, choice, protocol)


def _plan(subject: Subject, choice: Choice, protocol: PictureProtocol) -> Plan:
    check_choice(choice, subject.methods)
    choice = replace(choice, precision=precision_of(choice.precision))
    methods = [method for method in subject.methods.values() if method.name in choice.methods]
    prior, made = weights_hash(choice.prior), list[Cell]()
    for seed in choice.scenes:
        if subject is PANORAMA:
            scenes = panorama_from_seed(seed, protocol.budget.parts).scenes
        else:
            scenes = (scene_from_seed(seed),)
        shared = {
            "format": PICTURE_CELL_FORMAT,
            "benchmark": subject.name,
            "scene": {"seed": seed, "scenes": [asdict(scene) for scene in scenes]},
            "size": protocol.size,
            "views": protocol.budget.parts,
        }
        networks = {"prior": prior, "prior_dtype": choice.precision}
        where, noun = {"prior": choice.prior}, subject.noun
        base = Cell({"kind": "scene", **shared, **networks}, where=where, label=f"{noun} {seed}")
        made.append(base)
        for asked in instructions(choice.instructions, scenes[0], scenes[1:]):
            truth = Cell({"kind": "truth", **shared, "instruction": asked.text}, label=f"truth {seed} {asked.text}")
            made.append(truth)
            about = {**shared, **networks, "instruction": asked.text, "ambiguous": asked.ambiguous}
            for method in methods:
                made += _edits(subject, method, asked, about, (base, truth), choice, protocol)
    unique = {cell.key: cell for cell in made}
    return Plan(protocol, tuple(unique.values()), prior_shown(choice), subject=subject)


def _edits(
    subject: Subject,
    method: Method,
    asked: Instruction,
    about: dict[str, Any],
    inputs: tuple[Cell, Cell],
    choice: Choice,
    protocol: PictureProtocol,
) -> list[Cell]:
    """One method's cells for one instruction."""
    base, truth = inputs
    needs, spec = (base.key, truth.key), {"kind": "edit", **about, "method": method.name}
    label = f"{about['scene']['seed']} {asked.text}: {method.name}"
    if method.name == UNEDITED:
        return [Cell({**spec, "seed": 0, "guidance": None, "settings": None}, needs, {}, label, asked.name)]
    made = []
    for seed in choice.seeds:
        for scale in choice.guidance:
            settings = method.spend(protocol.budget) | ({} if scale is None else {"guidance_scale": scale})
            decided = {"seed": seed, "guidance": scale, "settings": settings}
            decided["configuration"] = _configuration(subject.name, settings)
            said = label + ("" if scale is None else f", guidance {scale:g}") + (f", seed {seed}" if seed else "")
            made.append(Cell({**spec, **decided}, needs, {"prior": choice.prior}, said, asked.name))
    return made


def _configuration(kind: Any, settings: dict[str, Any]) -> str:
    """Hash of all that the settings leave to the preset: a changed default is another experiment."""
    used = settings_of(kind, settings).used()
    used.pop("keep_detail")  # the same for all, and as it was before there was a choice
    return hashlib.sha256(repr(sorted(used.items(), key=lambda item: item[0])).encode()).hexdigest()[:12]
