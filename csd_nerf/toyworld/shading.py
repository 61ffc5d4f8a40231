"""Colours for a geometry buffer: paint, material, snow, night, ground and sky.

All colours are linear RGB, 0..1 when as bright as the picture can show; the result is averaged over a pixel's samples
and then turned to sRGB. Textures depend on world positions only, so the same point of a scene has the same albedo in
every view.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.toyworld.geometry import Part
from csd_nerf.toyworld.ground import BACKDROPS, STARRY, WINTER, ground_albedo, sky
from csd_nerf.toyworld.scene import COLOURS, Scene
from csd_nerf.toyworld.textures import linear, noise
from csd_nerf.toyworld.trace import GROUND, GeometryBuffer


@dataclass(frozen=True)
class Light:
    """How bright sun (or moon) and surroundings are, linear RGB."""

    sun: tuple[float, float, float]
    above: tuple[float, float, float]
    below: tuple[float, float, float]


DAY = Light((0.98, 0.93, 0.84), (0.42, 0.46, 0.52), (0.24, 0.22, 0.20))
WINTER_DAY = Light((0.62, 0.62, 0.64), (0.50, 0.52, 0.56), (0.36, 0.37, 0.39))
NIGHT = Light((0.19, 0.26, 0.48), (0.060, 0.085, 0.180), (0.026, 0.036, 0.075))


def column(colour: tuple[float, ...]) -> Float[Tensor, "3 1"]:
    """A colour, ready to be broadcast over samples."""
    return torch.tensor(colour)[:, None]


@torch.no_grad()
def shade(buffer: GeometryBuffer, scene: Scene) -> Float[Tensor, "views 3 height width"]:
    """Pictures of `scene`, 0..1 sRGB. The buffer must have been traced from this scene's geometry."""
    backdrop = WINTER if scene.snow else BACKDROPS[scene.background]
    light = NIGHT if scene.night else WINTER_DAY if scene.snow else DAY
    colour = sky(buffer.direction, STARRY if scene.night else backdrop, stars=scene.night)
    rows = (buffer.part == GROUND).nonzero()[:, 0]
    colour[:, rows] = _ground(buffer, rows, scene, light, colour[:, rows])
    rows = (buffer.part >= 0).nonzero()[:, 0]
    colour[:, rows] = _object(buffer, rows, scene, light)
    return _develop(colour, buffer)


def _develop(colour: Float[Tensor, "3 n"], buffer: GeometryBuffer) -> Float[Tensor, "views 3 height width"]:
    s = buffer.samples
    colour = colour.clamp(0, 1).reshape(3, buffer.views, buffer.height, s, buffer.width, s)
    return colour.mean((3, 5)).transpose(0, 1).pow(1 / 2.2).contiguous()


def _ground(
    buffer: GeometryBuffer, rows: Tensor, scene: Scene, light: Light, horizon: Float[Tensor, "3 m"]
) -> Float[Tensor, "3 m"]:
    position = buffer.position[:, rows]
    albedo = ground_albedo(position, scene.background, scene.snow)
    direct = buffer.sunlight[rows] * buffer.sun[2]
    lit = albedo * (column(light.sun) * direct + column(light.above) * (0.35 + 0.65 * buffer.openness[rows]))
    # The plane has no end; it turns into the sky's lowest colour with the distance from the object, not from the
    # camera, so that this too is the same in every view.
    away = ((buffer.away[rows] - 2.2) / 6.5).clamp(0, 1)
    away = away * away * (3 - 2 * away)
    return lit + (horizon - lit) * away


def _object(buffer: GeometryBuffer, rows: Tensor, scene: Scene, light: Light) -> Float[Tensor, "3 m"]:
    position, normal, part = buffer.position[:, rows], buffer.normal[:, rows], buffer.part[rows]
    direction = buffer.direction[:, rows]
    albedo = albedos(buffer, rows, scene)
    material = torch.tensor([_takes_material(p) for p in buffer.table.parts])[part]
    snow = snow_cover(position, normal) if scene.snow else torch.zeros_like(position[0])
    albedo = albedo + (column((0.90, 0.93, 0.97)) - albedo) * snow
    sun = column(buffer.sun)
    facing = (normal * sun).sum(0)
    direct = facing.clamp_min(0) * buffer.sunlight[rows]
    up = 0.5 + 0.5 * normal[2]
    ambient = (column(light.below) + (column(light.above) - column(light.below)) * up) * buffer.openness[rows]
    colour = albedo * (column(light.sun) * direct + ambient)
    mirror = direction - 2 * (direction * normal).sum(0) * normal
    towards = (mirror * sun).sum(0).clamp_min(0) * (facing > 0) * buffer.sunlight[rows]
    if scene.material == "metal":
        metal = material * (1 - snow)
        shown = _reflection(albedo, mirror, towards, light) * (0.3 + 0.7 * buffer.openness[rows])
        colour = colour + (shown + 0.10 * colour - colour) * metal
    gloss = 0.05 if scene.material in ("wood", "stone") else 0.22
    dull = torch.where(material > 0, gloss, 0.25) * (1 - snow)
    if scene.material == "metal":
        dull = dull * (1 - material)
    colour = colour + dull * towards.pow(24) * column(light.sun)
    return _glow(colour, buffer, part, scene)


def albedos(buffer: GeometryBuffer, rows: Tensor, scene: Scene) -> Float[Tensor, "3 m"]:
    """Paint and material texture of object samples, before snow and light."""
    part = buffer.part[rows]
    palette = torch.stack([linear(_paint(p.paint, scene)) for p in buffer.table.parts], 1)
    albedo = palette[:, part]
    if scene.material in ("wood", "stone"):
        material = torch.tensor([_takes_material(p) for p in buffer.table.parts])[part]
        texture = wooden if scene.material == "wood" else stony
        textured = texture(albedo if scene.painted else None, buffer.position[:, rows])
        albedo = albedo + (textured - albedo) * material
    return albedo


def _paint(paint: str, scene: Scene) -> str:
    if paint == "main":
        return COLOURS[scene.colour]
    if paint == "hat":
        return COLOURS[scene.hat.colour] if scene.hat else "#ffffff"
    return paint


def _takes_material(part: Part) -> float:
    return 1.0 if part.paint == "main" or part.textured else 0.0


def _reflection(
    albedo: Float[Tensor, "3 m"], mirror: Float[Tensor, "3 m"], towards: Float[Tensor, "m"], light: Light
) -> Float[Tensor, "3 m"]:
    """A photo studio mirrored in tinted steel: a bright ceiling, a dark horizon, a grey floor.

    All of it is wide and the same all around, so that a picture of the painted object tells where its reflections will
    be: what lies where around the object, or dents, no picture of paint shows, and an edit could only guess.
    """
    z = mirror[2]
    lamps = ((z - 0.1) / 0.35).clamp(0, 1)
    ceiling = 0.30 + 0.35 * ((z - 0.1) / 0.5).clamp(0, 1)
    floor = 0.55 * ((-z - 0.02) / 0.4).clamp(0, 1)
    band = (z.abs() / 0.3).clamp(0, 1)
    level = sum(light.above) / sum(DAY.above)
    steel = 0.6 * albedo + 0.4 * column((0.36, 0.38, 0.42))
    tinted = steel * (0.05 + 0.6 * ceiling * band + 0.6 * floor + 0.5 * lamps)
    white = 0.10 * lamps.square() + 1.8 * towards.pow(40) * (sum(light.sun) / sum(DAY.sun))
    return level * (tinted + 0.02) + white * (0.35 + 0.65 * level)


def wooden(paint: Float[Tensor, "3 m"] | None, position: Float[Tensor, "3 m"]) -> Float[Tensor, "3 m"]:
    """Wavy dark grain through light wood; under paint the grain still shows."""
    base = linear("#c88a48")[:, None] if paint is None else paint
    bend = 0.16 * noise(position * 1.9 + 1.3)
    grain = torch.sin((position[2] + 0.22 * position[0] + 0.1 * position[1] + bend) * 30.0)
    dark = 0.5 + 0.5 * (grain * 1.5).clamp(-1, 1)
    return base * (1.10 - 0.68 * dark)


def stony(paint: Float[Tensor, "3 m"] | None, position: Float[Tensor, "3 m"]) -> Float[Tensor, "3 m"]:
    """Grey with dark and light grains; under paint the grains still show."""
    base = linear("#a2a19c")[:, None] if paint is None else 0.9 * paint + 0.04
    grain = 0.85 + 0.30 * noise(position * 6.0 + 3.7) + 0.65 * noise(position * 15.0)
    return base * grain.clamp(0.25, 1.5)


def snow_cover(position: Float[Tensor, "3 m"], normal: Float[Tensor, "3 m"]) -> Float[Tensor, "m"]:
    """How much snow lies at a point, 0..1: on what faces up, with a ragged rim."""
    cover = ((normal[2] + 0.16 * noise(position * 5.0) - 0.22) / 0.16).clamp(0, 1)
    return cover * cover * (3 - 2 * cover)


def _glow(colour: Float[Tensor, "3 m"], buffer: GeometryBuffer, part: Tensor, scene: Scene) -> Float[Tensor, "3 m"]:
    if not scene.night:
        return colour
    own = torch.stack([p.glow * linear(p.glow_colour or _paint(p.paint, scene)) for p in buffer.table.parts], 1)
    return colour + own[:, part]
