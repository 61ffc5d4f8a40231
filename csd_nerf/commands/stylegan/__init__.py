"""`csd stylegan`: convert, train, adapt and measure generators. Heavy libraries load when it runs, not for its help."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from csd_nerf.commands.stylegan.adapt import Adapt
from csd_nerf.commands.stylegan.convert import Convert
from csd_nerf.commands.stylegan.evaluate import Evaluate
from csd_nerf.commands.stylegan.train_toy import TrainToy


@dataclass(frozen=True)
class StyleGAN:
    """StyleGAN2 generators: adapt one to a prompt, read published ones, train the toy's, measure them."""

    command: (
        Annotated[Adapt, tyro.conf.subcommand("adapt")]
        | Annotated[Convert, tyro.conf.subcommand("convert")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[TrainToy, tyro.conf.subcommand("train-toy")]
    )

    def run(self) -> int:
        """Run the chosen command."""
        return self.command.run()


__all__ = ["StyleGAN"]
