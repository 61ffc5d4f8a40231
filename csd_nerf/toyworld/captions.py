"""Words for toy pictures: captions, instructions and the vocabulary they are made of."""

from csd_nerf.toyworld.scene import BACKGROUNDS, COLOURS, HAT_KINDS, MATERIALS, OBJECT_NAMES, Scene
from csd_nerf.toyworld.style_nets import PAINTINGS

MATERIAL_WORDS = {"matte": "", "metal": "metal ", "wood": "wooden ", "stone": "stone "}
PLACES = {
    "studio": "in a studio",
    "meadow": "on a meadow",
    "sand": "on the sand",
    "sea": "on the sea",
    "floor": "in a room",
}
STYLE_WORDS = {"sketch": "pencil sketch", "oil": "oil painting", "popart": "pop art", "night": "at night"} | {
    name: f"in the style of {title}" for name, title in PAINTINGS.items()
}
PHOTO = "a photo"
INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "recolour": (
        "make it {colour}",
        "turn it {colour}",
        "paint it {colour}",
        "make the {object} {colour}",
        "paint the {object} {colour}",
        "turn the {object} {colour}",
    ),
    "material": (
        "make it out of {material}",
        "turn it into {material}",
        "make the {object} out of {material}",
        "turn the {object} into {material}",
        "make it {material}",
    ),
    "hat": (
        "give it a {hat}",
        "put a {hat} on it",
        "add a {hat}",
        "give the {object} a {hat}",
        "put a {hat} on the {object}",
    ),
    "snow": ("make it snow", "cover it with snow", "make it winter", "let it snow", "cover the {object} with snow"),
    "night": (
        "make it night",
        "turn it into night",
        "make it look like night",
        "change it to night",
        "show it at night",
    ),
    "colour": (
        "change its colour",
        "give it another colour",
        "change the colour of the {object}",
        "make it a different colour",
    ),
    "sketch": (
        "turn it into a pencil sketch",
        "make it a pencil drawing",
        "draw it with a pencil",
        "make it look like a pencil sketch",
    ),
    "oil": (
        "turn it into an oil painting",
        "make it an oil painting",
        "make it look like an oil painting",
        "paint it in oil",
    ),
    "popart": ("turn it into pop art", "make it pop art", "make it look like pop art"),
    "painting": (
        "turn it into a painting in the style of {painting}",
        "paint it in the style of {painting}",
        "make it look like {painting}",
    ),
    "identity": ("keep it as it is", "change nothing", "do nothing"),
}


def view_word(azimuth: float, elevation: float) -> str:
    """`front`, `side`, `back`, or `overhead` from high up (degrees)."""
    if elevation >= 38:
        return "overhead"
    turned = abs((azimuth + 180) % 360 - 180)
    return "front" if turned <= 50 else "back" if turned >= 130 else "side"


def caption(scene: Scene, azimuth: float, elevation: float, style: str | None = None) -> str:
    """Words for one picture; bare wood and stone name no colour.

    For instance `a red metal mushroom with a blue top hat on a meadow at night, front view, oil painting`.
    """
    colour = f"{scene.colour} " if scene.painted else ""
    words = f"{colour}{MATERIAL_WORDS[scene.material]}{scene.object}"
    words = ("an " if words[0] in "aeiou" else "a ") + words
    if scene.hat is not None:
        hat = f"{scene.hat.colour} {scene.hat.kind}"
        words += (" with an " if hat[0] in "aeiou" else " with a ") + hat
    words += " covered in snow" if scene.snow else f" {PLACES[scene.background]}"
    words += " at night" if scene.night else ""
    return with_style(f"{words}, {view_word(azimuth, elevation)} view", style)


def with_style(words: str, style: str | None) -> str:
    """A caption with a style's name added."""
    return words if style is None else f"{words}, {STYLE_WORDS[style]}"


def vocabulary() -> list[str]:
    """Every word that captions and instructions can contain, lower case, sorted; under 400."""
    fills = [*COLOURS, *OBJECT_NAMES, *MATERIALS, *HAT_KINDS, *PAINTINGS.values(), *MATERIAL_WORDS.values()]
    phrases = [template for templates in INSTRUCTIONS.values() for template in templates]
    fixed = ["a an with covered in snow at night front side back overhead view hat", PHOTO]
    texts = [*fills, *phrases, *fixed, *STYLE_WORDS.values(), *(PLACES[b] for b in BACKGROUNDS)]
    words = {word.strip(",") for text in texts for word in text.split() if "{" not in word}
    return sorted(words)
