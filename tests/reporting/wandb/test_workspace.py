"""The workspace is built without a network, and asks for what its grid has."""

import json
from pathlib import Path
from typing import Any

import pytest
import reporting_factories as make
from wandb_workspaces.workspaces import Workspace, internal

from src.evaluation.grid import Grid
from src.evaluation.sanity_checks import CheckReport
from src.reporting.document.findings import TITLE
from src.reporting.document.key_figures import key_figures
from src.reporting.document.sections import sections as report_sections
from src.reporting.wandb.grid import grid_key
from src.reporting.wandb.settings import WandbSettings
from src.reporting.wandb.workspace import Logged, logged, to_json, workspace
from tests.reporting.document.test_certified import FIVE
from tests.reporting.document.test_findings import FOUND
from tests.workspace_reading import Panel, panels, sections

ALWAYS = ["Grid", "Trade-off", "Images", "Training", "Cost"]


def stored(seen: Logged, **settings: Any) -> dict[str, Any]:
    return json.loads(to_json(workspace(WandbSettings(Path("outputs"), **settings), "a grid", seen)))


def line_panels(seen: Logged) -> list[Panel]:
    return [panel for panel in panels(stored(seen)) if panel.section == "Grid" and "Line" in panel.kind]


def beside(*grids: Grid) -> Grid:
    return Grid(tuple(row for grid in grids for row in grid))


def test_it_says_where_it_belongs_and_has_its_sections_in_order(grid):
    here = stored(logged(grid), project="p", entity="e")
    assert (here["entity"], here["project"], here["displayName"]) == ("e", "p", "a grid")
    assert [section["name"] for section in sections(here)] == ALWAYS
    assert all(section["panels"] for section in sections(here))


def test_certificates_have_a_section_if_there_are_any(grid):
    names = [section["name"] for section in sections(stored(logged(grid, [FIVE])))]
    assert names == [*ALWAYS[:3], "Certified", *ALWAYS[3:]]


def test_nothing_is_hidden_on_a_second_page(grid):
    for section in sections(stored(logged(grid, [FIVE]))):
        flow = section["flowConfig"]
        assert flow["columnsPerPage"] * flow["rowsPerPage"] >= len(section["panels"])


def test_an_attack_has_a_panel_and_a_defense_with_its_noise_a_line(grid):
    found = line_panels(logged(grid))
    assert [panel.title for panel in found] == [f"Accuracy under {attack} · gray_box" for attack in make.ATTACKS]
    for panel, attack in zip(found, make.ATTACKS, strict=True):
        assert panel.config["xAxis"] == "eps"
        assert panel.config["metrics"] == [
            f"{attack}/{label}"
            for label in ("none", "kmeans", "binarize", "vqvae_0", "vqvae_0_25", "vqvae_0_5", "vqvae_0_75")
        ]


def test_each_threat_has_panels_of_its_own_and_no_line_is_in_two(grid):
    both = beside(make.make_grid(attacks=("fgsm", "pgd")), make.make_grid(attacks=("pgd",), threat="adaptive"))
    found = line_panels(logged(both))
    wanted = {f"Accuracy under {attack}" for attack in ("fgsm · gray_box", "pgd · gray_box", "pgd · adaptive")}
    assert {panel.title for panel in found} == wanted
    lines = [metric for panel in found for metric in panel.config["metrics"]]
    assert len(lines) == len(set(lines)) == 3 * len(make.COLUMNS)


def test_seeds_are_told_apart():
    found = line_panels(logged(make.make_replicates(attacks=("fgsm",))))
    assert len(found) == 3
    assert {panel.title for panel in found} == {f"Accuracy under fgsm · gray_box · seed {seed}" for seed in range(3)}


def test_what_is_not_computed_is_not_asked_for(grid):
    lines = line_panels(logged(make.without(make.without(grid, attack="fgsm"), defense="vqvae", noise=0.5)))
    assert [panel.title.split()[2] for panel in lines] == ["ifgsm", "mifgsm"]
    assert not any("vqvae_0_5" in metric for panel in lines for metric in panel.config["metrics"])


def test_it_opens_with_the_reports_title_and_warning_and_shows_the_runs_of_the_sweep_alone(grid):
    here = stored(logged(grid, [FIVE]))
    first = panels(here)[0]
    key = key_figures(report_sections(grid))
    assert first.section == "Grid" and first.config["value"].startswith(f"## {key.title}\n\n{key.warning}")
    (runs,) = here["spec"]["section"]["runSets"]
    filters = {each["key"]["name"]: (each["op"], set(each["value"])) for each in runs["filters"]["filters"]}
    keys = {row.key for row in grid} | {grid_key(grid), FIVE.certification.key}
    assert filters["key"] == ("IN", keys)
    assert filters["weights"] == ("IN", {FIVE.certification.classifier} | filters["weights"][1])


def test_reasons_for_suspicion_stand_below_the_title(grid):
    title, suspicion = panels(stored(logged(grid, checks=CheckReport((FOUND,), judged=4))))[:2]
    assert title.config["value"] == panels(stored(logged(grid)))[0].config["value"]
    assert suspicion.config["value"].startswith(f"## {TITLE}\n\n1 found by")
    assert FOUND.message in suspicion.config["value"]


@pytest.mark.parametrize("empty", [Logged(), logged(Grid(()))])
def test_without_a_sweep_the_rest_is_there(empty):
    assert line_panels(empty) == []
    assert stored(empty)["spec"]["section"]["runSets"][0]["filters"]["filters"] == []
    assert [section["name"] for section in sections(stored(empty))] == ALWAYS


def test_wandbs_own_reader_finds_in_it_what_was_put_there(pictured):
    text = to_json(workspace(WandbSettings(Path("outputs"), entity="e"), "a grid", logged(pictured, [FIVE])))
    again = Workspace._from_model(internal.View.model_validate_json(text))
    assert again.auto_generate_panels is False
    assert json.loads(to_json(again))["spec"]["section"]["panelBankConfig"]["sections"] == sections(json.loads(text))
