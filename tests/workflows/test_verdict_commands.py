"""``verdict=…`` on the command line."""

import pytest

from tests.workflows.conftest import cells, copy_of, read_grid

FEW = ("logger=none", "limit=20", "checks.images=0", "eps=0.1", "attack=fgsm")
ALL = "verdict=single,worst_of_n,majority,frozen"


@pytest.mark.slow
def test_four_verdicts_stand_side_by_side(trained, run_command, tmp_path):
    outputs = copy_of(trained, tmp_path)
    noisy = ("defense=vqvae,none,binarize", "noise=0.5", "inference_noise=0.5", "verdict_samples=5")
    done = run_command("src.sweep", "-m", *FEW, *noisy, ALL, outputs=outputs)
    rows = {row["defense"]: row for row in read_grid(outputs)}
    judged = {"vqvae (worst of 5)", "vqvae (majority of 5)", "vqvae (frozen)"}
    assert {*rows} == {"vqvae", "none", "binarize"} | judged
    assert len({row["key"] for row in rows.values()}) == len(rows)
    assert int(rows["vqvae (worst of 5)"]["correct"]) <= int(rows["vqvae"]["correct"])
    assert "binarize is not random: all verdicts on it are one" in done.stdout
    assert "vqvae (worst of 5)" in (outputs / "report" / "grid.md").read_text()

    before = cells(outputs)
    run_command("src.sweep", "-m", *FEW, *noisy, "verdict=single", outputs=outputs)
    assert cells(outputs) == before, "the keys of single are those of the sweep without a verdict"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "given", "said"),
    [
        ("src.sweep", "verdict=best", "verdict=best is not 'single', 'worst_of_n', 'majority' or 'frozen'"),
        ("src.sweep", "verdict_samples=0", "verdict_samples=0 is not a whole number, at least 1"),
        ("src.play", "verdict=majority", "verdict=majority is not 'single' or 'frozen'"),
    ],
)
def test_what_is_no_verdict_is_refused_in_one_line(run_command, tmp_path, module, given, said):
    done = run_command(module, given, "logger=none", outputs=tmp_path, check=False)
    assert done.returncode and said in done.stdout + done.stderr
