"""The order in which a sweep's jobs are launched."""

import random
from itertools import product

import pytest

from src.evaluation import NO_DEFENSE, AttackSpec, CellSpec, DataSpec, DefenseSpec, ThreatSpec
from src.workflows.planning import Job, in_order_of_need


def make_job(attack: str, eps: float, defense: str, knows_defense: bool = False) -> Job:
    spec = CellSpec(
        data=DataSpec("digits", "digits", 64),
        classifier="linear",
        attack=AttackSpec(attack, {"_target_": attack}),
        eps=eps,
        threat=ThreatSpec("threat", {"_target_": "threat"}, knows_defense),
        defense=NO_DEFENSE if defense == "none" else DefenseSpec(defense, {"_target_": defense}),
    )
    return Job((f"attack={attack}", f"eps={eps}", f"defense={defense}"), spec, spec.coordinates)


def grid(attacks=("fgsm", "ifgsm"), budgets=(0.1, 0.2), defenses=("none", "kmeans", "binarize"), **fields) -> list[Job]:
    clean = [make_job("fgsm", 0.0, defense) for defense in defenses]
    return clean + [make_job(*point, **fields) for point in product(attacks, budgets, defenses)]


def places(jobs: list[Job]) -> list[tuple[str, float, str]]:
    return [(job.coordinates.attack, job.coordinates.eps, job.coordinates.defense) for job in jobs]


@pytest.mark.parametrize("seed", range(20))
def test_what_others_need_comes_first_whatever_the_order(seed):
    jobs = grid()
    random.Random(seed).shuffle(jobs)
    ordered = in_order_of_need(jobs)
    assert sorted(places(ordered)) == sorted(places(jobs))
    assert places(ordered)[0] == ("fgsm", 0.0, "none")
    bare = {(attack, eps, "none") for attack, eps in product(("fgsm", "ifgsm"), (0.1, 0.2))}
    assert set(places(ordered)[1:7]) == bare | {("fgsm", 0.0, "kmeans"), ("fgsm", 0.0, "binarize")}
    for begin, end in ((1, 7), (7, len(jobs))):  # within a group, as asked for
        asked = [job for job in jobs if job in ordered[begin:end]]
        assert ordered[begin:end] == asked


def test_without_a_bare_cell_the_first_asked_for_makes_the_set():
    jobs = grid(attacks=("fgsm",), budgets=(0.3,), defenses=("kmeans", "binarize"))
    random.Random(0).shuffle(jobs)
    attacked = [place for place in places(jobs) if place[1]]
    ordered = places(in_order_of_need(jobs))
    assert ordered.index(attacked[0]) < 3
    assert ordered[3] == attacked[1]


def test_a_set_that_nobody_shares_is_nothing_to_wait_for():
    jobs = grid(attacks=("fgsm",), defenses=("kmeans", "binarize"), knows_defense=True)
    ordered = places(in_order_of_need(list(reversed(jobs))))
    assert [eps for _, eps, _ in ordered[:2]] == [0.0, 0.0]
    assert ordered[2:] == [place for place in places(reversed(jobs)) if place[1]]
    assert in_order_of_need([]) == []
