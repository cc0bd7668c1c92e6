"""From stored cells to a folder of tables, figures and a page."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from src.evaluation.grid import Grid
from src.evaluation.sanity_checks import CheckReport
from src.files import clear_temporaries, write_atomically, write_text
from src.reporting.analysis.certified import CertifiedSet
from src.reporting.document.certified import certified_sections
from src.reporting.document.findings import NOTHING_CHECKED, findings_to_json
from src.reporting.document.sections import all_sentences, comparisons, sections
from src.reporting.figures.gallery import render, save
from src.reporting.figures.plan import plan, plan_certified
from src.reporting.markdown import certified_to_markdown, to_markdown
from src.reporting.page.page import to_html

if TYPE_CHECKING:
    from src.training_record import TrainingRecord


@dataclass(frozen=True)
class Report:
    """What was written."""

    folder: Path
    paths: tuple[Path, ...]  #: every file: ``grid.csv``, ``grid.md``, ``index.html``, ``findings.json``, figures
    sentences: tuple[str, ...]  #: the grid in words, the headline first


def write_report(
    grid: Grid,
    records: "list[TrainingRecord]",
    folder: Path,
    compare_published: bool = False,
    checks: CheckReport = NOTHING_CHECKED,
    certified: Sequence[CertifiedSet] = (),
) -> Report:
    """Write ``grid.csv``, ``grid.md``, ``index.html``, ``findings.json`` and ``figures/*.png``. Nothing is computed but
    what is shown.

    Figures that show what they already show are not drawn again, and those of an earlier grid are removed.

    Args:
        grid: cells, computed or missing; may be empty.
        records: training runs whose losses and reconstructions are shown.
        folder: usually ``outputs/report``; made if need be.
        compare_published: put the report's own numbers beside ours.
        checks: what the checks of the grid came to.
        certified: certificates on the grid's data sets; without any, nothing is said of them.

    Raises:
        UserError: the folder cannot be written.
    """
    _clear(folder)
    parts = sections(grid)
    comparison_parts = comparisons(grid) if compare_published else []
    certified_parts = certified_sections(certified)
    drawings = [*plan(parts, records), *plan_certified(certified_parts)]
    figures = render(drawings, folder / "figures")
    texts = {
        "grid.csv": grid.to_csv(),
        "grid.md": to_markdown([*parts, *comparison_parts, *certified_parts], figures, checks),
        "findings.json": findings_to_json(checks),
    }
    texts["index.html"] = to_html(grid, parts, comparison_parts, records, checks, certified_parts, texts)
    for name, text in texts.items():
        write_text(folder / name, text)
    return Report(folder, (*(folder / name for name in texts), *figures.values()), tuple(all_sentences(parts)))


def copy_report(report: Report, folder: Path) -> None:
    """Copy the files of a report to ``folder``, each atomically. Figures there that the report does not have are
    removed.

    Raises:
        UserError: the folder cannot be written.
    """
    copies = {folder / path.relative_to(report.folder): path for path in report.paths}
    for copy, path in copies.items():
        write_atomically(copy, partial(shutil.copyfile, path))
    for path in (folder / "figures").glob("*.png"):
        if path not in copies:
            path.unlink(missing_ok=True)


def write_certified(sets: Sequence[CertifiedSet], folder: Path) -> Report:
    """Write ``certified.md`` and ``figures/certified*.png`` of certificates alone, for a folder without a report of
    their data; what else lies there is left as it is.

    Raises:
        UserError: the folder cannot be written.
    """
    _clear(folder)
    parts = certified_sections(sets)
    figures = {}
    for drawing in plan_certified(parts):
        figure, figures[drawing.name] = drawing.picture(), folder / "figures" / drawing.name
        assert figure is not None
        save(figure, figures[drawing.name])
    path = folder / "certified.md"
    write_text(path, certified_to_markdown(parts, figures))
    return Report(folder, (path, *figures.values()), tuple(sentence for part in parts for sentence in part.sentences))


def _clear(folder: Path) -> None:
    """Remove the half-written files of a report that was killed."""
    for directory in (folder, folder / "figures"):
        clear_temporaries(directory)
