"""What each column of a grid costs in time."""

from statistics import median

from src.evaluation.spec import Column
from src.reporting.analysis.facets import Facet
from src.reporting.document.tables import Entry, Table, milliseconds_entry

#: Stages whose median time per image is shown; not the attack's, which all defenses share.
PER_IMAGE = ("purify", "classify")
STAGES = ("attack", *PER_IMAGE)


def cost_table(facet: Facet) -> Table | None:
    """Time by column and stage: milliseconds an image (median over the column's cells), and all seconds spent. Beside
    it what an attack costs on any machine: images through the classifier, forward and backward, for each image that is
    attacked (median again)."""
    rows = [(label, _entries(facet, column)) for column, label in zip(facet.columns, facet.column_labels, strict=True)]
    image_columns = (*(f"{stage}, ms an image" for stage in PER_IMAGE), "attack, propagations an image")
    columns = (*image_columns, *(f"{stage}, s" for stage in STAGES))
    return Table("Time by stage", "defense", columns, tuple(rows)) if any(row.cell for row in facet.grid) else None


def _entries(facet: Facet, column: Column) -> tuple[Entry, ...]:
    cells = {row.key: row.cell for row in facet.grid.where(column=column) if row.cell}.values()
    times = [[cell.stages[stage] / cell.n for cell in cells if stage in cell.stages] for stage in PER_IMAGE]
    work = [cell.propagations_per_image for cell in cells if cell.propagations_per_image is not None]
    return (
        *(milliseconds_entry(median(per_image) if per_image else None) for per_image in times),
        Entry(f"{median(work):,.0f}") if work else Entry(),
        *(Entry(f"{sum(cell.stages.get(stage, 0.0) for cell in cells):,.1f}") for stage in STAGES),
    )
