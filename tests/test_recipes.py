# SPDX-License-Identifier: Apache-2.0
"""Each row of the benchmark's tables is made as its title says: from which volumes, by which steps, with which options."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from scripts.cli.config_files import config_folder
from scripts.cli.option_help import read_help

from benchmarks.paper.recipes import Recipes, Row
from benchmarks.paper.scoring import LEARNING
from benchmarks.paper.tables import rows
from benchmarks.paper.tasks import Task

SEEDS = [11, 12]
SIZES: dict[str, Any] = {  # every number another one, so that each is known wherever it is found
    "factor": 5,
    "prior_factors": [1, 3],
    "seeds": SEEDS,
    "prior": {"max_epochs": 101, "batch_size": 102},
    "prior_network": {"width": 103},
    "generate": {"num_steps": 6},
    "restorations": {"other way": {"sampler": "reverse_sde", "num_steps": 100}},
    "aenet": {"max_epochs": 104, "epoch_length": 10},
    "aenet_network": {"widths": [21, 22, 23, 24]},
    "epochs": [105],
    "factor_epochs": 106,
    "srunet": {"max_epochs": 107, "num_targets": 9},
}
TRAIN, TEST = "data/train.ome.tif", "data/test.ome.tif"
FACTORS = {5: Task(Path(TEST), Path("work/test_lowres.tif"), 5), 2.5: Task(Path("true.tif"), Path("coarse.tif"), 2.5)}
PLACES = ("output", "output_dir")
Made = tuple[str, dict[str, Any]]


def all_rows(seed: int) -> Iterator[tuple[str, Row]]:
    return rows(Recipes(Path("work"), Path("data"), SIZES, seed), FACTORS)


def row(title: str, seed: int) -> Row:
    (found,) = (row for _, row in all_rows(seed) if row.title == title)
    return found


def made_of(row: Row, file: Path | None) -> Any:
    """How a file of a row comes about: config and options, where a file that an earlier stage makes is told alike."""
    before: dict[str, Any] = {}
    for stage in row.stages:
        options = {
            name: before.get(value, value) if isinstance(value, str) else value
            for name, value in stage["options"].items()
        }
        before[stage["result"]] = stage["config"], {
            name: value for name, value in options.items() if name not in PLACES
        }
    return before[str(file)]


# ---- what the titles mean --------------------------------------------------------------------------------------------


def lowres(volume: str) -> Made:
    return "decimate.yaml", {"volume": volume, "factor": 5}


def prior(volume: Made, prior_factor: int, seed: int) -> Made:
    options = {"volume": volume, "factor": 5, "prior_factor": prior_factor, "seed": seed}
    return "train_diffusion.yaml", {**SIZES["prior"], **SIZES["prior_network"], **options}


def restored(volume: Made, by: Made, **options: Any) -> Made:
    common = {name: by[1][name] for name in ("factor", "prior_factor", "seed")}
    return "generate.yaml", {**(options or SIZES["generate"]), **common, "volume": volume, "weights": by}


def pseudo(volume: Made, prior_factor: int, seed: int) -> dict[str, Any]:
    """What stage III learns from after stages I and II."""
    made = restored(volume, prior(volume, prior_factor, seed))
    return {"volume": made, "input_factor": prior_factor}


def aenet(learn: dict[str, Any], seed: int, **options: Any) -> Made:
    sizes = {**SIZES["aenet"], **SIZES["aenet_network"], "architecture": "aenet", "val_factor": 5, "seed": seed}
    return "train.yaml", {**sizes, **learn, **options}


def srunet(learn: dict[str, Any], seed: int) -> Made:
    return "train.yaml", {
        **SIZES["srunet"],
        "architecture": "srunet",
        "factor": 5,
        "val_factor": 5,
        "seed": seed,
        **learn,
    }


def used(weights: Made | None, **options: Any) -> Made:
    """Reconstruction of the test volume, by the shipped weights without others."""
    given = {} if weights is None else {"weights": weights}
    return "inference.yaml", {"volume": lowres(TEST), "factor": 5, **given, **options}


def taught(learn: dict[str, Any], seed: int, volume: Made | None = None) -> dict[str, Any]:
    """What the student learns from: what the teacher makes of the coarse volume."""
    made = used(aenet(learn, seed), volume=volume or lowres(TRAIN))
    return {"volume": made, "input_factor": 5}


def expected(seed: int) -> dict[str, Made]:
    truth, coarse = {"volume": TRAIN, "sequence_axes": ["z"]}, {"volume": lowres(TRAIN)}
    whole = pseudo(lowres(TRAIN), 5, seed)
    student, own = taught(whole, seed), pseudo(lowres(TEST), 5, seed)
    other = restored(lowres(TRAIN), prior(lowres(TRAIN), 5, seed), **SIZES["restorations"]["other way"])
    others = {"volume": other, "input_factor": 5}
    at = {"volume": "coarse.tif", "factor": 2.5}
    shorter = aenet(student, seed, max_epochs=106)
    return {
        "SRUNet": used(srunet(truth, seed)),
        "Sup-AENet": used(aenet(truth, seed)),
        "Sup-AENet for as long as teacher and student": used(aenet(truth, seed, max_epochs=208)),
        "AENet at k = 1 (no diffusion)": used(aenet(coarse, seed)),
        "AENet at k = 1 (no diffusion), self-trained": used(aenet(taught(coarse, seed), seed)),
        "the diffusion prior alone": restored(lowres(TEST), prior(lowres(TRAIN), 5, seed)),
        "D2R-SRUNet": used(srunet(whole, seed)),
        "D2R-AENet": used(aenet(whole, seed)),
        "D2R-AENet, self-trained": used(aenet(student, seed)),
        "D2R-AENet, self-trained, test-time augmentation": used(aenet(student, seed), tta=True),
        "D2R-AENet, self-trained on the test volume's own slices": used(aenet(taught(own, seed, lowres(TEST)), seed)),
        "k = 1": used(aenet(coarse, seed)),
        "k = 3": used(aenet(pseudo(lowres(TRAIN), 3, seed), seed)),
        "D2R-AENet, other way": used(aenet(others, seed)),
        "D2R-AENet, self-trained, other way": used(aenet(taught(others, seed), seed)),
        "the shipped weights": used(None),
        "D2R-AENet, self-trained for 1050 steps": used(aenet(student, seed, max_epochs=105)),
        "x5: the shipped weights": used(None),
        "x5: D2R-AENet, self-trained for 1060 steps": used(shorter),
        "x5: D2R-AENet, self-trained for 1060 steps on x5 alone": used(
            aenet(student, seed, max_epochs=106, train_factors=[5, 5], val_factor=5)
        ),
        "x2.5: the shipped weights": used(None, **at),
        "x2.5: D2R-AENet, self-trained for 1060 steps": used(shorter, **at),
        "x2.5: D2R-AENet, self-trained for 1060 steps on x2 and x3 alone": used(
            aenet(student, seed, max_epochs=106, train_factors=[2, 3], val_factor=2), **at
        ),
    }


OF_THE_FIRST_SEED = ("the shipped weights", "self-trained for", "x5:", "x2.5:")
WITHOUT_PREDICTED = ("SRUNet", "D2R-SRUNet", "the diffusion prior alone")
CASES = [
    (title, seed)
    for seed in SEEDS
    for title in expected(seed)
    if seed == SEEDS[0] or not any(words in title for words in OF_THE_FIRST_SEED)
]


@pytest.mark.parametrize("title, seed", CASES)
def test_a_row_is_made_as_its_title_says(title, seed):
    found = row(title, seed)
    assert made_of(found, found.volume) == expected(seed)[title]
    supervised = title.startswith("Sup-AENet") or title == "SRUNet"
    assert found.kind == ("supervised" if supervised else "self-supervised")
    assert found.task == FACTORS[2.5 if title.startswith("x2.5") else 5]


@pytest.mark.parametrize("seed", SEEDS)
def test_input_slices_are_predicted_in_tables_1_and_3(seed):
    for table, found in all_rows(seed):
        predicted = table in ("table 1", "table 3") and found.title not in WITHOUT_PREDICTED
        assert (found.predicted is not None) == predicted, found.title
        if predicted:
            config, options = made_of(found, found.volume)
            assert made_of(found, found.predicted) == (config, {**options, "input_slices": "predict"})


@pytest.mark.parametrize("seed", SEEDS)
def test_there_are_these_rows(seed):
    assert {found.title for _, found in all_rows(seed)} == {title for title, of in CASES if of == seed}
    assert [found.title for _, found in all_rows(seed) if found.pictured] == ["the shipped weights"] * (
        seed == SEEDS[0]
    )


def test_nothing_takes_the_place_of_something_else():
    """
    What several rows need is one stage; other options have another result, and what is trained, whose seconds are kept
    by title, has another title too.
    """
    by_result: dict[str, Any] = {}
    by_title: dict[Any, str] = {}
    for seed in SEEDS:
        for _, found in all_rows(seed):
            for stage in found.stages:
                assert by_result.setdefault(stage["result"], stage) == stage
                if stage["config"] in LEARNING:
                    assert by_title.setdefault((seed, stage["title"]), stage["result"]) == stage["result"]


def test_each_stage_has_options_of_its_config_and_the_result_that_it_writes():
    names = {"train.yaml": "model.pt", "train_diffusion.yaml": "model_diffusion.pt", "generate.yaml": "pseudo_hr.tif"}
    read = cache(lambda config: {option.name: option for option in read_help(config_folder() / config).options})
    for seed in SEEDS:
        for _, found in all_rows(seed):
            for stage in found.stages:
                known = read(stage["config"])
                for name, value in stage["options"].items():
                    kind = known[name].type
                    assert kind is not None and kind.check(name, value) == value
                if "output_dir" in stage["options"]:
                    assert Path(stage["result"]) == Path(stage["options"]["output_dir"], names[stage["config"]])
                else:
                    assert stage["result"] == stage["options"]["output"]
