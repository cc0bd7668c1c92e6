"""Which figures a grid has, under which names."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from src.evaluation.spec import number
from src.reporting.analysis.certified import Certificates
from src.reporting.analysis.facets import Facet, FacetGroup
from src.reporting.analysis.labels import slug
from src.reporting.document.sections import GridSection, Section
from src.reporting.figures import charts
from src.reporting.figures import image_panels as mosaics
from src.reporting.figures.charts import Chart, picture

if TYPE_CHECKING:
    from src.training_record import TrainingRecord


@dataclass(frozen=True)
class Drawing:
    """A figure that can be drawn."""

    name: str  #: file name
    topic: str  #: in which company W&B shows it: "accuracy", "trade-off", "heat map", "images", "training", "certified"
    caption: str
    draw: Callable[[], Chart | None]  #: Vega-Lite

    def picture(self) -> Chart | None:
        """The figure on white paper, under its caption; None if there is nothing to show."""
        chart = self.draw()
        return chart and picture(chart, self.caption)


def plan(sections: Sequence[GridSection], records: Sequence["TrainingRecord"]) -> list[Drawing]:
    """All figures of a grid and its training runs, those without anything to show left out."""
    return [*_grid_figures(sections), *_training_figures(records)]


def plan_certified(parts: Sequence[Section[Certificates]]) -> list[Drawing]:
    """A figure for each data set with certificates."""
    return [
        Drawing(
            name=f"certified{part.suffix}.png",
            topic="certified",
            caption=f"Certified accuracy against L2 radius · {part.data}",
            draw=partial(charts.certified_chart, part),
        )
        for part in (section.subject for section in parts)
    ]


def _grid_figures(sections: Sequence[GridSection]) -> Iterator[Drawing]:
    for section in sections:
        yield from _accuracy_figures(section)
        if section.trade_offs:
            yield from _image_figures(section.facets[0])


def _accuracy_figures(section: GridSection) -> Iterator[Drawing]:
    """Trade-off of a facet, accuracy under each attack, heat map of a facet."""
    subject, about = section.subject, _about(section.subject)

    def drawing(name: str, topic: str, caption: str, draw: Callable[..., Chart], *arguments: Any) -> Drawing:
        return Drawing(f"{name}{subject.suffix}.png", topic, caption, partial(draw, *arguments))

    tradeoffs = section.trade_offs
    if tradeoffs and any(item.clean and item.attacked for item in tradeoffs.items):
        title = f"What each defense pays and wins{about}"
        yield drawing("tradeoff", "trade-off", title, charts.tradeoff_figure, subject, tradeoffs)
    for attack in subject.attacks:
        if any(row.cell for row in subject.grid.where(attack=attack)):
            name, title = f"accuracy-{slug(attack)}", f"Accuracy under {attack}{about}{subject.bars(attack)}"
            yield drawing(name, "accuracy", title, charts.accuracy_figure, section.lines, attack)
    if tradeoffs and any(row.cell for row in subject.grid):
        yield drawing("heatmap", "heat map", f"Accuracy in percent, attack × defense{about}", charts.heat_map, subject)


def _image_figures(facet: Facet) -> Iterator[Drawing]:
    """A panel for each attack and eps."""
    for attack, eps in _scenes(facet):
        name = f"panel-{slug(attack)}-eps{_exact(eps)}" if eps else "panel-eps0"
        caption = (f"{attack}, eps {number(eps)}" if eps else "Without attack") + _about(facet)
        draw = partial(mosaics.attack_panel, facet, attack, eps)
        yield Drawing(f"{name}{facet.suffix}.png", "images", caption, draw)


def _about(part: Facet | FacetGroup) -> str:
    """The end of a caption: which part of the grid it is, if there are several."""
    return f" · {part.name}" if part.name else ""


def _scenes(facet: Facet) -> list[tuple[str, float]]:
    """(attack, eps) with images to show; at eps 0 all attacks are one, the first with images stands for them."""
    pairs = list(
        dict.fromkeys(
            (row.coordinates.attack, row.coordinates.eps) for row in facet.grid if row.cell and row.cell.examples
        )
    )
    return [pair for pair in pairs if pair[1] == 0][:1] + [pair for pair in pairs if pair[1] != 0]


def _training_figures(records: Sequence["TrainingRecord"]) -> Iterator[Drawing]:
    ordered = sorted(records, key=lambda r: (r.model, r.data, r.seed, r.noise is not None, r.noise or 0.0))
    if any(record.losses for record in ordered):
        draw = partial(charts.training_chart, ordered)
        yield Drawing("training-loss.png", "training", "Training loss", draw)
    pictured = [record for record in ordered if mosaics.is_pictured(record)]
    groups = list(dict.fromkeys((record.model, record.data, record.seed) for record in pictured))
    for model, data, seed in groups:
        group = [r for r in pictured if (r.model, r.data, r.seed) == (model, data, seed)]
        several_data = len({d for m, d, _ in groups if m == model}) > 1
        several_seeds = len({s for m, _, s in groups if m == model}) > 1
        suffix = (f"-{slug(data)}" if several_data else "") + (f"-seed{seed}" if several_seeds else "")
        caption = f"What {model} makes of validation images" + (f" · {data} · seed {seed}" if suffix else "")
        name = f"reconstructions-{slug(model)}{suffix}.png"
        yield Drawing(name, "training", caption, partial(mosaics.reconstruction_panel, group))


def _exact(eps: float) -> str:
    """An eps in a file name: no digit is lost, so that no two share a file."""
    short = f"{eps:g}"
    return short if float(short) == eps else repr(eps)
