"""Fidelity against consistency over guidance scales, in the shape of CSD Figures 4 and 6.

The paper plots CLIP directional similarity (fidelity) over CLIP image similarity (consistency with the source). Here
the truth is known: fidelity is the PSNR to the (nearest) true edit, consistency for deterministic instructions that the
unedited region stays as it was, for ambiguous ones that the edited views agree on a colour (by the colour spread of
renders those are ahead that edit less). Both axes are turned so that up and to the right is better, as in the paper.
"""

from collections.abc import Sequence
from pathlib import Path

from csd_nerf.bench.measure import LOWER_IS_BETTER
from csd_nerf.bench.report import values
from csd_nerf.bench.rows import Row
from csd_nerf.bench.statistics import by_scene
from csd_nerf.bench.subject import SCENES, Subject

FIDELITY = "PSNR"


def curve(rows: Sequence[Row], method: str, measure: str) -> list[tuple[float, float, float]]:
    """Points (guidance, mean consistency measure, mean fidelity) of a method, over the cells that have both."""
    points = []
    scales = sorted({row.cell.spec["guidance"] for row in rows if row.cell.spec["guidance"] is not None})
    for scale in scales:
        own = [row for row in rows if row.cell.spec["guidance"] == scale and row.method == method]
        seeds = [row.cell.spec["seed"] for row in own]
        x, y = (values(own, method, name, seeds) for name in (measure, FIDELITY))
        common = x.keys() & y.keys()
        if common:
            means = (by_scene({key: found[key] for key in sorted(common)}) for found in (x, y))
            points.append((scale, *(sum(one.values()) / len(one) for one in means)))
    return points


def plot(rows: Sequence[Row], path: Path, subject: Subject = SCENES) -> None:
    """Draw the curves of all methods as a PNG. Raises `ValueError` if no cell is done yet."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels, names = [], list(subject.methods)
    for panel in subject.panels:
        group = [row for row in rows if row.cell.spec["ambiguous"] == panel.ambiguous]
        curves = {method: points for method in names if (points := curve(group, method, panel.measure))}
        if curves:
            panels.append((panel.measure in LOWER_IS_BETTER, panel.label, panel.title, curves))
    if not panels:
        raise ValueError("no cell of the sweep is done yet")
    figure, axes = pyplot.subplots(1, len(panels), figsize=(6 * len(panels), 5), squeeze=False)
    for axis, (turned, label, title, curves) in zip(axes[0], panels, strict=True):
        for method, points in curves.items():
            scales, x, y = zip(*points, strict=True)
            (line,) = axis.plot(x, y, marker="o", label=method, color=f"C{names.index(method)}")
            for scale, a, b in zip(scales, x, y, strict=True):
                axis.annotate(
                    f"{scale:g}", (a, b), textcoords="offset points", xytext=(5, 4), fontsize=8, color=line.get_color()
                )
        if turned:
            axis.invert_xaxis()
        axis.set(
            xlabel=f"{label} (more consistent →)", ylabel="PSNR to the true edit, dB (more faithful →)", title=title
        )
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    missing = sum(row.result is None for row in rows)
    lacking = f"; {missing} of {len(rows)} cells are missing, so that points are of different cells" if missing else ""
    figure.suptitle(f"Guidance scales along each curve{lacking}")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
