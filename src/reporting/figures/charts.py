"""All charts of a report as Vega-Lite specifications, plain dicts (https://vega.github.io/vega-lite/docs).

The page embeds them and fills in the rows that are switched on; ``picture`` makes figures of them, which W&B shows.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any

from src.evaluation.spec import Column, number
from src.reporting.analysis.certified import Certificates
from src.reporting.analysis.facets import Facet
from src.reporting.analysis.labels import MISSING, column_label, spread
from src.reporting.analysis.rates import Rate
from src.reporting.analysis.replicates import Replicates
from src.reporting.analysis.tradeoff import TradeOffs
from src.reporting.document.tables import rate_text
from src.reporting.figures.colours import (
    CROSS,
    DASH_DOTTED,
    DASHED,
    DOTTED,
    FIXED,
    HEAT,
    INK,
    LINE,
    SOFT,
    SOLID,
    Style,
    column_styles,
    heat,
    shades,
)

if TYPE_CHECKING:
    from src.training_record import TrainingRecord

Chart = dict[str, Any]  #: a Vega-Lite specification
Row = dict[str, Any]  #: what is drawn at one place

#: Noises of one defense that a legend names; of more, an even selection.
IN_LEGEND = 8
#: Points of a loss curve: losses of single batches jump, and are averaged to as many.
LOSSES = 150
#: Lines that have their names at their ends; of more, the names would not fit below one another.
ENDS_NAMED = 24
#: Height of a name at the end of a line, as a share of the accuracies from 0 to 1.
NAME_HEIGHT = 0.042
#: Columns above which numbers would not be legible in a heat map, and a colour key stands for them.
WRITTEN_OUT = 16
#: Columns and rows above which a heat map would be larger than a page.
WIDEST, DEEPEST = 40, 60


def look(ink: str, soft: str, line: str) -> Chart:
    """Vega-Lite's configuration, with these colours (of whatever CSS can name) for text, quiet text and thin lines."""
    axis = {"labelColor": soft, "titleColor": ink, "gridColor": line, "domainColor": soft, "tickColor": soft}
    return {
        "background": None,
        "font": "system-ui, sans-serif",
        "view": {"stroke": None},
        "axis": axis | {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"},
        "header": {"labelColor": ink, "labelFontSize": 12, "labelAnchor": "start", "labelPadding": 5},
        "text": {"color": ink},
        "legend": {"labelColor": ink, "labelFontSize": 12, "title": None, "labelLimit": 450, "symbolOpacity": 1},
        "title": {"color": ink, "fontSize": 15, "subtitleColor": soft, "anchor": "start", "frame": "bounds"},
    }


def picture(chart: Chart, title: str) -> Chart:
    """A chart as it is drawn on white paper; a title is cut where it would be wider than a page."""
    paper = look(INK, SOFT, LINE) | {"background": "white", "padding": 12, "font": "Liberation Sans, sans-serif"}
    heading = {"text": title if len(title) <= 90 else f"{title[:89]}…", "offset": 12} | chart.get("title", {})
    size = {} if {"facet", "hconcat"} & set(chart) else {"width": 520, "height": 320}
    return size | chart | {"title": heading, "config": paper}


def _styled(styles: Mapping[str, Style], named: Sequence[str] = (), **legend: Any) -> tuple[Chart, Chart, Chart]:
    """The channels "color", "shape" and "strokeDash" that draw each label in its style. ``named``: the labels of the
    legend, if not all."""

    def channel(name: str, values: list[Any]) -> Chart:
        scale, key = {"domain": list(styles), "range": values}, {"values": list(named or styles)} | legend
        return {name: {"field": "label", "type": "nominal", "scale": scale, "legend": key}}

    return (
        channel("color", [style.colour for style in styles.values()]),
        channel("shape", [style.shape for style in styles.values()]),
        channel("strokeDash", [style.dash for style in styles.values()]),
    )


def _columns_styled(columns: Sequence[Column], bare: Sequence[Column]) -> tuple[Chart, Chart, Chart]:
    styles = {column_label(*column): style for column, style in column_styles(list(columns), bare).items()}
    return _styled(styles, _named(columns))


def _named(columns: Sequence[Column]) -> list[str]:
    """The labels of the columns; of a family of many noises an even selection."""
    families: dict[str, list[Column]] = {}
    for column in columns:
        families.setdefault(column[0], []).append(column)
    selection = {column for family in families.values() for column in spread(family, IN_LEGEND)}
    return [column_label(*column) for column in columns if column in selection]


def _number(field: str, title: str | None = None, **others: Any) -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "title": title} | others


def _share(field: str, title: str, below: float = 0.03) -> dict[str, Any]:
    """0 to 100 %, always, so that figures can be compared; a little room keeps bars at the ends whole."""
    axis = {"format": "~%", "values": [i / 5 for i in range(6)]}
    return _number(field, title, scale={"domain": [-below, 1.03], "nice": False}, axis=axis)


def _layer(mark: str, encoding: dict[str, Any], only: str | None = None, **properties: Any) -> Chart:
    """Marks of one kind. ``only``: an expression; rows of which it is false have no marks."""
    layer = {"mark": {"type": mark} | properties, "encoding": encoding}
    return layer if only is None else layer | {"transform": [{"filter": only}]}


def _bars(along: str, axis: dict[str, Any], low: str, high: str, others: dict[str, Any]) -> Chart:
    """Error bars with caps ``along`` this axis, "x" or "y"."""
    ends = {along: axis | {"field": low}, f"{along}2": {"field": high}}
    return _layer("errorbar", ends | others, thickness=1.6, opacity=1, ticks={"size": 13, "opacity": 1})


def _opaque(test: str, otherwise: float = 0) -> dict[str, Any]:
    """Points of which this expression is true are opaque, others as much as ``otherwise``; their tooltips stay."""
    return {"opacity": {"condition": {"test": test, "value": 1}, "value": otherwise}}


def _tooltip(**titles: str) -> dict[str, Any]:
    return {"tooltip": [{"field": field, "title": title} for field, title in titles.items()]}


def bar(rate: Rate) -> Row:
    """An accuracy with the ends of its error bar, if it has one, and its text."""
    low, high = (None if isnan(end) else end for end in (rate.low, rate.high))
    return {"accuracy": rate.fraction, "low": low, "high": high, "text": rate_text(rate)}


# ---- accuracy against eps


def accuracy_chart(
    columns: Sequence[Column], bare: Sequence[Column], threats: Sequence[str] = (), named: bool = False
) -> Chart:
    """Accuracy against eps, a line a column, with error bars.

    Args:
        threats: drawn into one another, the first solid.
        named: write each column's name at the end of its line.
    """
    color, shape, dash = _columns_styled(columns, bare)
    if len(threats) > 1:
        scale = {"domain": list(threats), "range": [SOLID, DASHED, DASH_DOTTED, DOTTED][: len(threats)]}
        dash = {"strokeDash": {"field": "threat", "type": "nominal", "scale": scale, "legend": None}}
    eps_title, axis = "eps (L∞, pixel units)", {"tickCount": 7, "format": "~g"}
    x = {"x": _number("eps", eps_title, scale={"nice": False, "padding": 12}, axis=axis)}
    y = {"y": _share("accuracy", "accuracy")}
    tooltip = _tooltip(label="defense", threat="threat", eps="eps", text="accuracy, %")
    return {
        "description": "Accuracy against eps",
        "encoding": x | {"detail": [{"field": "column"}, {"field": "threat"}]},
        "layer": [
            _layer("line", y | color | dash, strokeWidth=2),
            _bars("y", y["y"], "low", "high", color),
            _layer("point", y | color | shape | tooltip, filled=True, size=26, opacity=1),
            *(_names_at_ends(x | y, color | dash) if named else []),
        ],
    }


def _names_at_ends(titled: dict[str, Any], styled: dict[str, Any]) -> list[Chart]:
    """Layers that write each line's name to the right of its last point. ``titled``: the channels "x" and "y" of the
    chart; ``styled``: those that tell its lines apart.

    Names that would overlap are moved apart. Pushed up from the lowest, the i-th of them, from below, stands at
    ``i h + max(y_j - j h over j <= i)``, where h is a name's height; pushed down from the highest at the same with the
    least over j >= i. Halfway between them no two overlap either, nor after all are kept within the chart.
    """

    def window(sort: str, **operation: Any) -> Row:
        return {"window": [operation], "sort": [{"field": sort}]}

    h, by_rank = NAME_HEIGHT, "datum.rank"
    transforms = [
        {"filter": "isValid(datum.accuracy)"},
        {"joinaggregate": [{"op": "max", "field": "eps", "as": "last"}], "groupby": ["column", "threat"]},
        {"filter": "datum.eps === datum.last"},
        {"joinaggregate": [{"op": "max", "field": "eps", "as": "end"}, {"op": "count", "as": "lines"}]},
        {"filter": f"datum.lines <= {ENDS_NAMED}"},
        window("accuracy", **{"op": "row_number", "as": "rank"}),
        {"calculate": f"datum.accuracy - {h} * {by_rank}", "as": "free"},
        window("rank", **{"op": "max", "field": "free", "as": "up"}) | {"frame": [None, 0]},
        window("rank", **{"op": "min", "field": "free", "as": "down"}) | {"frame": [0, None]},
        {"calculate": f"(datum.up + datum.down) / 2 + {h} * {by_rank}", "as": "between"},
        {"calculate": f"min(datum.between, 1.01 - {h} * (datum.lines - {by_rank}))", "as": "below"},
        {"calculate": f"max(datum.below, -0.01 + {h} * ({by_rank} - 1))", "as": "place"},
    ]
    x, y = titled["x"], titled["y"]
    leader = {"x": x, "x2": {"field": "end"}, "y": y, "y2": {"field": "place"}}
    name = {"x": x | {"field": "end"}, "y": y | {"field": "place"}, "text": {"field": "label"}}
    return [
        _layer("rule", leader | styled, xOffset=5, x2Offset=16, strokeWidth=1.2) | {"transform": transforms},
        _layer("text", name, align="left", dx=19, limit=90) | {"transform": transforms},
    ]


def accuracy_rows(line: Facet | Replicates, columns: Sequence[Column], attacks: Sequence[str]) -> Iterator[Row]:
    """The rows that :func:`accuracy_chart` draws. The first column, no defense, comes last, and so lies on top. A
    missing cell has a row without an accuracy, which leaves a gap in its line."""
    for attack in attacks:
        for i, column in reversed(list(enumerate(columns))):
            rates = {eps: line.rate(attack, eps, column) for eps in line.budgets(attack)}
            for eps, rate in rates.items() if any(rates.values()) else ():
                position = {"attack": attack, "eps": eps, "column": i, "label": column_label(*column)}
                yield position | {"threat": line.threat} | (bar(rate) if rate else {"accuracy": None})


def accuracy_figure(lines: Sequence[Facet | Replicates], attack: str) -> Chart:
    """Accuracy against eps under one attack; several threats have a panel each, with the same lines."""
    columns, bare = list(dict.fromkeys(column for line in lines for column in line.columns)), lines[0].grid.bare
    chart = accuracy_chart(columns, bare)
    chart["encoding"]["x"]["title"] = f"eps of {attack} (L∞, pixel units)"
    data = {"values": [row for line in lines for row in accuracy_rows(line, columns, [attack])]}
    if len(lines) == 1:
        return chart | {"data": data}
    threat = {"field": "threat", "type": "nominal", "title": None, "sort": [line.threat for line in lines]}
    return {"data": data, "facet": {"column": threat}, "spec": chart | {"width": 330, "height": 320}}


# ---- clean against attacked accuracy


def tradeoff_chart(columns: Sequence[Column], bare: Sequence[Column], eps: float) -> Chart:
    """Clean accuracy against what the worst attack leaves: a point a column, noises of a defense joined by a line.
    Columns below the parameter ``floor`` are pale."""
    (color, shape, _), budget = _columns_styled(columns, bare), number(eps)
    scale, axis = {"zero": False, "nice": False, "padding": 24}, {"format": "~%", "tickCount": 6}
    x = {"x": _number("clean_accuracy", "accuracy on clean images", scale=scale, axis=axis)}
    y = {"y": _share("attacked_accuracy", f"accuracy at eps {budget}, worst attack", below=0.07)}
    pale = _opaque("datum.clean_accuracy >= floor - 1e-9", otherwise=0.25)
    tooltip = _tooltip(label="defense", clean_text="clean, %", attacked_text=f"at eps {budget}, %")
    line_channels = {"detail": {"field": "defense"}, "order": _number("noise")}
    text = {"text": {"condition": {"test": "datum.named", "field": "label"}, "value": ""}}
    # Neighbours in height have their labels on different sides of their points.
    label_offsets: Row = {"align": "left", "dx": 9, "dy": {"expr": "datum.rank % 2 ? 11 : -8"}}
    return {
        "description": f"Clean accuracy against the accuracy under the worst attack at eps {budget}",
        "params": [{"name": "floor", "value": 0}],
        "transform": [{"window": [{"op": "row_number", "as": "rank"}], "sort": [{"field": "attacked_accuracy"}]}],
        "layer": [
            _layer("line", x | y | line_channels, strokeWidth=1.2, color="#b5bcc4"),
            _bars("y", y["y"], "attacked_low", "attacked_high", x | color | pale),
            _bars("x", x["x"], "clean_low", "clean_high", y | color | pale),
            _layer("point", x | y | color | shape | pale | tooltip, filled=True, size=45),
            _layer("text", x | y | text | pale, **label_offsets),
        ],
    }


def tradeoff_rows(tradeoffs: TradeOffs, columns: Sequence[Column]) -> Iterator[Row]:
    """What :func:`tradeoff_chart` draws: the columns that met every attack."""
    for item in tradeoffs.items:
        if item.clean and item.attacked:
            position = {"column": columns.index(item.column), "defense": item.defense, "noise": item.noise}
            bars = {"clean": bar(item.clean), "attacked": bar(item.attacked)}
            numbers = {f"{prefix}_{name}": value for prefix, fields in bars.items() for name, value in fields.items()}
            yield position | {"label": item.label, "named": True} | numbers


def tradeoff_figure(facet: Facet, tradeoffs: TradeOffs) -> Chart:
    """:func:`tradeoff_chart` of all columns of a facet; of a family of many noises not all points are named."""
    chart, named = tradeoff_chart(facet.columns, facet.grid.bare, tradeoffs.eps or 0), _named(facet.columns)
    rows = [row | {"named": row["label"] in named} for row in tradeoff_rows(tradeoffs, facet.columns)]
    return chart | {"data": {"values": rows}}


# ---- certified accuracy against radius


def certified_styles(certificates: Certificates) -> dict[str, Style]:
    """A colour a σ. Dashes without a denoiser, other strokes for further sets of one σ; crosses are published."""
    tones = shades([certified_set.sigma for certified_set in certificates.sets])
    styles, counts = dict[str, Style](), Counter[tuple[float, bool]]()
    for certified_set in certificates.sets:
        sigma, bare = certified_set.sigma, certified_set.certification.denoiser is None
        strokes = (DASHED, (3, 3), DOTTED) if bare else (SOLID, DASH_DOTTED, (5, 2, 1, 2))
        styles[certified_set.label] = Style(tones[sigma], dash=strokes[min(counts[sigma, bare], 2)])
        counts[sigma, bare] += 1
    return styles | {curve.label: Style(tones[curve.sigma], CROSS) for curve in certificates.published}


def certified_chart(certificates: Certificates) -> Chart:
    """Certified accuracy against the L2 radius, bands 95 % Wilson intervals. An accuracy holds back to the radius
    before it."""
    color, shape, dash = _styled(certified_styles(certificates), symbolSize=160, symbolStrokeWidth=1.5)
    y = {"y": _share("accuracy", "certified accuracy")}
    band = {"y": y["y"] | {"field": "low"}, "y2": {"field": "high"}}
    tooltip = {"tooltip": [{"field": "label", "title": "classifier"}, {"field": "radius", "format": ".3f"},
                           {"field": "accuracy", "format": ".1%"}]}  # fmt: skip
    own_rows = "!datum.published"
    return {
        "description": "Certified accuracy against L2 radius",
        "data": {"values": [*_certified_rows(certificates)]},
        "encoding": {"x": _number("radius", "L2 radius (pixel units)"), "detail": {"field": "label"}},
        "layer": [
            _layer("area", band | color, own_rows, interpolate="step-before", opacity=0.14),
            _layer("line", y | color | dash, own_rows, interpolate="step-before", strokeWidth=2),
            _layer("point", y | color | shape | tooltip | _opaque("datum.published"), filled=True, size=90),
        ],
    }


def _certified_rows(certificates: Certificates) -> Iterator[Row]:
    for certified_set in certificates.sets:
        for radius, rate in [*certified_set.curve(), (certified_set.largest, Rate(0, 0, 0))]:
            ends = {"accuracy": rate.fraction, "low": rate.low, "high": rate.high}
            yield {"label": certified_set.label, "radius": radius, "published": False} | ends
    for curve in certificates.published:
        for radius, share in curve.percents.items():
            if share:
                yield {"label": curve.label, "radius": radius, "accuracy": share / 100, "published": True}


# ---- training losses


def training_styles(records: Sequence["TrainingRecord"]) -> dict[str, Style]:
    """A shade a training noise, else a colour of its own."""
    tones = shades([record.noise for record in records if record.noise is not None])
    colours = [FIXED[i % len(FIXED)] if r.noise is None else tones[r.noise] for i, r in enumerate(records)]
    return {run_label(r): Style(colour) for r, colour in zip(records, colours, strict=True) if r.losses}


def training_chart(records: Sequence["TrainingRecord"]) -> Chart:
    """Training loss against step, a line a run, a panel a kind of model: averages over equal stretches of steps, a band
    from the smallest to the largest loss of each. Dots are the validation loss at the end of an epoch."""
    rows, styles = [row for record in records for row in _losses(record)], training_styles(records)
    color, *_ = _styled(styles, spread(list(styles), 2 * IN_LEGEND))
    kind: Row = {"type": "log"} if all(row["low"] > 0 for row in rows) else {"zero": False}
    scale = kind | {"nice": False, "padding": 6}
    y = {"y": _number("loss", "loss (dots: validation)", scale=scale, axis={"tickCount": 4, "format": "~g"})}
    band = {"y": y["y"] | {"field": "low"}, "y2": {"field": "high"}}
    tooltip = {"tooltip": [{"field": "label", "title": "run"}, {"field": "step"}, {"field": "loss", "format": ".4g"}]}
    step = _number("step", "step", scale={"zero": False, "nice": False, "padding": 6}, axis={"tickCount": 5})
    training_rows = "!datum.validation"
    models = list(dict.fromkeys(record.model for record in records))
    return {
        "description": "Training loss against step",
        "data": {"values": rows},
        "facet": {"field": "model", "type": "nominal", "title": None, "sort": models},
        "columns": 2,
        "resolve": {name: {"x": "independent", "y": "independent"} for name in ("scale", "axis")},
        "spec": {
            "width": 360,
            "height": 240,
            "encoding": {"x": step, "detail": {"field": "label"}},
            "layer": [
                _layer("area", band | color, training_rows, opacity=0.18),
                _layer("line", y | color, training_rows, strokeWidth=1.7),
                _layer("point", y | color | tooltip | _opaque("datum.validation"), filled=True, size=45),
            ],
        },
    }


def _losses(record: "TrainingRecord") -> Iterator[Row]:
    run_fields = {"model": record.model, "label": run_label(record)}
    stretch = -(-len(record.losses) // LOSSES) or 1
    for start in range(0, len(record.losses), stretch):
        piece = [loss for _, loss in record.losses[start : start + stretch]]
        step = record.losses[min(start + stretch, len(record.losses)) - 1][0]
        ends = {"loss": sum(piece) / len(piece), "low": min(piece), "high": max(piece)}
        yield run_fields | {"step": step, "validation": False} | ends
    for epoch in record.epochs if record.losses else ():
        if {"step", "val/loss"} <= set(epoch):
            loss = epoch["val/loss"]
            yield run_fields | {"step": epoch["step"], "validation": True, "loss": loss, "low": loss, "high": loss}


def run_label(record: "TrainingRecord") -> str:
    """``vqvae 0.5 · mnist``; a seed other than 0 is named."""
    seed = f"seed {record.seed}" if record.seed else ""
    return " · ".join(filter(None, [column_label(record.model, record.noise), record.data, seed]))


# ---- heat map


def heat_map(facet: Facet) -> Chart:
    """Accuracy of every attack × eps (rows) and defense (columns); eps 0 is one row, all attacks share it."""
    rows, columns = spread(_scenes(facet), DEEPEST), spread(facet.columns, WIDEST)
    written = len(columns) <= WRITTEN_OUT
    names = ["no attack" if eps == 0 else f"{attack}  {number(eps)}" for attack, eps in rows]
    x = {"x": _position("column", [column_label(*column) for column in columns], labelAngle=-40)}
    y = _position("row", names)
    key = None if written else {"orient": "top", "format": "~%", "gradientLength": 200, "values": [0, 0.5, 1]}
    scale = {"domain": [0, 1], "range": HEAT, "interpolate": "rgb"}
    groups = [None if eps == 0 else attack for attack, eps in rows]
    edges = [i for i in range(1, len(groups)) if groups[i] != groups[i - 1]]
    text = _layer("text", x | {"text": {"field": "text"}}, color={"expr": "datum.ink"})
    return {
        "description": "Accuracy in percent, attack and eps down, defense across",
        "data": {"values": [*_heat_rows(facet, rows, columns)]},
        "width": {"step": 60 if written else 17},
        "height": {"step": 26},
        "encoding": {"y": y},
        "layer": [
            _layer("rect", x | {"color": _number("accuracy", scale=scale, legend=key)}),
            # a white line wherever another attack begins
            _layer("rule", {"y": y | {"bandPosition": 0}}, f"indexof({edges}, datum.row) >= 0", color="white", size=3),
            *([text] if written else []),
        ],
    }


def _scenes(facet: Facet) -> list[tuple[str, float]]:
    """(attack, eps), eps 0 once and first."""
    pairs = [(attack, eps) for attack in facet.attacks for eps in facet.budgets(attack)]
    clean = [pair for pair in pairs if pair[1] == 0][:1]
    return clean + [pair for pair in pairs if pair[1] != 0]


def _heat_rows(facet: Facet, rows: Sequence[tuple[str, float]], columns: Sequence[Column]) -> Iterator[Row]:
    for i, (attack, eps) in enumerate(rows):
        for j, column in enumerate(columns):
            cell = facet.cell(attack, eps, column)
            text, ink = (Rate.of(cell).percent, heat(cell.accuracy)[1]) if cell else (MISSING, SOFT)
            yield {"row": i, "column": j, "accuracy": cell.accuracy if cell else None, "text": text, "ink": ink}


def _position(field: str, names: Sequence[str], **axis: Any) -> dict[str, Any]:
    """Places by number, so that two of one name stay apart."""
    plain = {"title": None, "domain": False, "ticks": False, "labelExpr": f"{json.dumps(names)}[datum.value]"}
    return {"field": field, "type": "ordinal", "axis": plain | axis, "scale": {"domain": list(range(len(names)))}}
