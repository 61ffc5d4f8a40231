"""Which flags of `csd metrics` have an effect on which metrics."""

from collections.abc import Mapping, Sequence

from csd_nerf.metrics.catalogue import METRICS

USED_BY = {
    "--source-text": ("clip-direction",),
    "--target-text": ("clip-direction", "clip-text", "clip-depth", "r-precision"),
    "--truth": ("lpips", "fid", "psnr", "ssim"),
    "--retrieval-set": ("r-precision",),
    **dict.fromkeys(
        ("--clip", "--clip-weights", "--clip-tag"),
        tuple(name for name, metric in METRICS.items() if metric.network == "encoder"),
    ),
    "--lpips": ("lpips",),
    "--inception": ("fid",),
}
"""The metrics that a flag has an effect on."""


def check_names(names: Sequence[str]) -> None:
    """Raise `ValueError` for a metric that does not exist, and for no metric at all."""
    if not names:
        raise ValueError(f"--metrics is empty: name some of {', '.join(METRICS)}, or leave the flag out")
    for name in names:
        if name not in METRICS:
            raise ValueError(f"--metrics {name} is unknown: choose from {', '.join(METRICS)} (see --explain)")


def check_used(names: Sequence[str], given: Mapping[str, bool]) -> None:
    """Raise `ValueError` for each flag that is given and that none of the named metrics uses, a line each."""
    unused = [
        f"{flag} has no effect on --metrics {' '.join(names)}: leave it out, or add one of {', '.join(USED_BY[flag])}"
        for flag, is_given in given.items()
        if is_given and not set(USED_BY[flag]) & set(names)
    ]
    if unused:
        raise ValueError("\n".join(unused))
