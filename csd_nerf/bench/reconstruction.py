"""How well the scenes were reconstructed before any edit: a NeRF that did not find its photos has nothing to edit."""

from collections.abc import Sequence

from csd_nerf.bench.rows import SCENE_PSNR, Row

FOUND = 20.0
"""A scene below this many dB shows clouds in place of the object. It stays in the means."""


def quality(rows: Sequence[Row]) -> dict[int, float]:
    """The scenes' PSNR by seed, of those that are known, in order."""
    found = {row.key[0]: value for row in rows if (value := row.value(SCENE_PSNR)) is not None}
    return dict(sorted(found.items()))


def not_found(rows: Sequence[Row]) -> list[int]:
    """The scenes that were not reconstructed."""
    return [seed for seed, psnr in quality(rows).items() if psnr < FOUND]


def paragraph(rows: Sequence[Row]) -> list[str]:
    """What a report says about this, if anything is known."""
    found, lost = quality(rows), not_found(rows)
    if not found:
        return []
    said = ", ".join(f"{psnr:.1f} ({seed})" for seed, psnr in found.items())
    text = f"Before any edit, the scenes' PSNR to the photos of those views is {said} dB."
    if lost:
        text += (
            f" **Not reconstructed** (below {FOUND:g} dB): {', '.join(map(str, lost))}. They stay in the means; "
            "differences are given without them, too."
        )
    return [text, ""]
