"""`csd stylegan convert`: a published checkpoint as safetensors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from csd_nerf.commands.sitting import say
from csd_nerf.commands.stylegan.generators import check_other_file


@dataclass(frozen=True)
class Convert:
    """Write a generator's checkpoint as safetensors, which hold nothing but tensors.

    Reads rosinality's .pt and NVIDIA's .pkl (stylegan2-ada-pytorch). A pickle is a program: here it runs against a
    table of harmless names (tensors, containers, numbers); what asks for any other is refused, and code that NVIDIA's
    files carry along is not executed.
    """

    input: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """The checkpoint: .pkl, .pt, .pth or .safetensors."""
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The new file, .safetensors."""
    layout: Literal["rosinality", "nvidia", "same"] = "same"
    """Whose names the weights get."""
    half: bool = False
    """Store float16: half the size. Of the toy generator's pictures it moves one value of 8 bits in forty, by one
    level, seldom by two or three."""

    def run(self) -> int:
        """Convert."""
        from csd_nerf.images.stylegan.conversion import read_pickled
        from csd_nerf.images.stylegan.files import check_output, flat, save_generator
        from csd_nerf.images.stylegan.layouts import layout_of, read_generator

        check_output(self.output)
        check_other_file(self.input, self.output)
        weights = flat(read_pickled(self.input), str(self.input))
        generator = read_generator(weights, str(self.input))
        layout = layout_of(weights, str(self.input)) if self.layout == "same" else self.layout
        save_generator(self.output, generator, layout, half=self.half)
        shape = generator.shape
        say(
            f"{self.output}: {shape.size} x {shape.size} pixels, {shape.mapping_layers} mapping layers, {layout} layout"
        )
        return 0
