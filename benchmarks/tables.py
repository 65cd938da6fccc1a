# SPDX-License-Identifier: Apache-2.0
"""The paper's tables 1 and 3, trained and scored anew through the bundle's own configs: ``make benchmark``.

What is trained for how long, and the rule by which it was chosen, stands in ``tables.yaml``. Run the same command again after an
interruption and it goes on from what is finished. Every number in the page it writes comes from the ``scores.json`` files of the rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from monai.data import MetaTensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bundle"))

from baselines import misaligned_interpolation  # noqa: E402

from scripts import lattice  # noqa: E402
from scripts.evaluation import evaluate  # noqa: E402
from scripts.io import read_volume, write_volume  # noqa: E402
from scripts.io.whole_file import write_json, write_whole  # noqa: E402
from scripts.metrics import MEASURES, PLANES  # noqa: E402
from scripts.phantom import write_sample  # noqa: E402
from scripts.pipeline import run_stages  # noqa: E402
from scripts.report import rounded_down  # noqa: E402
from scripts.settings import machine  # noqa: E402

CONFIGS = ROOT / "bundle" / "configs"
Stage = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A line of a table: what has to run, in order, until ``volume`` is there."""

    title: str
    kind: str
    stages: list[Stage]
    volume: Path


class Recipes:
    """The rows of one seed; what several of them need is made once.

    Args:
        work: folder of all results.
        data: folder with ``train.ome.tif`` and ``test.ome.tif``, isotropic.
        sizes: a section of ``tables.yaml``.
        seed: of all draws.
    """

    def __init__(self, work: Path, data: Path, sizes: Mapping[str, Any], seed: int) -> None:
        self.work, self.data, self.sizes, self.seed = work, data, sizes, seed
        self.factor = sizes["factor"]
        self.folder = work / f"seed{seed}"

    def lowres(self, name: str) -> Path:
        """Every factor-th slice of a volume."""
        return self.work / f"{name}_lowres.tif"

    def decimate(self, name: str) -> Stage:
        """Make the coarse volume."""
        options = {"volume": self.data / f"{name}.ome.tif", "factor": self.factor, "output": self.lowres(name)}
        return self._stage(f"decimate {name}", "decimate.yaml", self.lowres(name), options)

    def pseudo(self, volume: Path, upsampling: int, folder: Path) -> tuple[list[Stage], Path]:
        """Stages I and II on a coarse volume; none for an upsampling of 1."""
        if upsampling == 1:
            return [], volume
        prior, pseudo = folder / "prior" / "model_diffusion.pt", folder / "pseudo" / "pseudo_hr.tif"
        common = {"volume": volume, "factor": self.factor, "upsampling": upsampling, "seed": self.seed}
        network = self.sizes["prior_network"]
        train = {**self.sizes["prior"], **network, **common, "output_dir": prior.parent}
        restore = {**self.sizes["generate"], **network, **common, "weights": prior, "output_dir": pseudo.parent}
        name = f"prior of {folder.name}"
        return [
            self._stage(name, "train_diffusion.yaml", prior, train),
            self._stage(f"pseudo-HR volume of {folder.name}", "generate.yaml", pseudo, restore),
        ], pseudo

    def distil(self, network: str, volume: Path, folder: Path, axes: Sequence[str] = ("x", "y")) -> tuple[Stage, Path]:
        """Stage III on a volume."""
        weights = folder / network / "model.pt"
        options = {**self.sizes[network], **self._network(network), "volume": volume, "axes": list(axes)}
        options.update(val_gap=self.factor, output_dir=weights.parent, seed=self.seed)
        return self._stage(f"{network} of {folder.name}", "train.yaml", weights, options), weights

    def insert(self, network: str, weights: Path, folder: Path, **options: Any) -> tuple[Stage, Path]:
        """Reconstruct the test volume."""
        output = folder / "-".join([network, *map(str, options.values()), "test.tif"])
        common = {"volume": self.lowres("test"), "factor": self.factor, "weights": weights, "output": output}
        options = {**common, **self._network(network), **options}
        return self._stage(f"{folder.name}: {output.stem}", "inference.yaml", output, options), output

    def _network(self, network: str) -> dict[str, Any]:
        return {"network": network, **(self.sizes["aenet_network"] if network == "aenet" else {"factor": self.factor})}

    @staticmethod
    def _stage(title: str, config: str, result: Path, options: Mapping[str, Any]) -> Stage:
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
        return {"title": title, "config": config, "result": str(result), "skip": False, "options": plain}

    def table_1(self) -> Iterator[Row]:
        """Supervised and self-supervised networks."""
        begin = [self.decimate("train"), self.decimate("test")]
        truth, coarse = self.data / "train.ome.tif", self.lowres("train")
        for network, title in (("srunet", "SRUNet"), ("aenet", "Sup-AENet")):
            folder = self.folder / "supervised"
            train, weights = self.distil(network, truth, folder, ["z"])
            use, volume = self.insert(network, weights, folder)
            yield Row(title, "supervised", [*begin, train, use], volume)
        folder = self.folder / "k1"
        train, weights = self.distil("aenet", coarse, folder)
        use, volume = self.insert("aenet", weights, folder)
        yield Row("AENet at k = 1 (no diffusion)", "self-supervised", [*begin, train, use], volume)

        folder = self.folder / f"k{self.factor}"
        first, pseudo = self.pseudo(coarse, self.factor, folder)
        restore = {**first[1]["options"], "volume": str(self.lowres("test"))}
        volume = folder / "prior_on_test" / "pseudo_hr.tif"
        restore["output_dir"] = str(volume.parent)
        alone = self._stage("the prior alone on test", "generate.yaml", volume, restore)
        yield Row("the diffusion prior alone", "self-supervised", [*begin, first[0], alone], volume)
        for network, title in (("srunet", "D2R-SRUNet"), ("aenet", "D2R-AENet")):
            train, weights = self.distil(network, pseudo, folder)
            use, volume = self.insert(network, weights, folder)
            yield Row(title, "self-supervised", [*begin, *first, train, use], volume)
        for title, options in (
            ("D2R-AENet, kept slices predicted", {"kept_slices": "predicted"}),
            ("D2R-AENet, self-ensemble", {"ensemble": True}),
        ):
            use, volume = self.insert("aenet", weights, folder, **options)
            yield Row(title, "self-supervised", [*begin, *first, train, use], volume)
        folder = self.folder / "own"
        first, pseudo = self.pseudo(self.lowres("test"), self.factor, folder)
        train, weights = self.distil("aenet", pseudo, folder)
        use, volume = self.insert("aenet", weights, folder)
        yield Row(
            "D2R-AENet, trained on the test volume's own slices",
            "self-supervised",
            [*begin, *first, train, use],
            volume,
        )

    def table_3(self) -> Iterator[Row]:
        """The upsampling k of stage II."""
        begin = [self.decimate("train"), self.decimate("test")]
        for upsampling in self.sizes["upsamplings"]:
            folder = self.folder / f"k{upsampling}"
            first, pseudo = self.pseudo(self.lowres("train"), upsampling, folder)
            train, weights = self.distil("aenet", pseudo, folder)
            use, volume = self.insert("aenet", weights, folder)
            yield Row(f"k = {upsampling}", "self-supervised", [*begin, *first, train, use], volume)


def scores_of(volume: Path, truth: Path, factor: int) -> dict[str, Any]:
    """Score a volume, or read the scores that it has."""
    folder = volume.with_suffix("")
    file = folder / "scores.json"
    if not file.is_file():
        evaluate(volume, truth, factor, folder)
    return json.loads(file.read_text(encoding="utf-8"))


def misaligned(recipes: Recipes) -> Path:
    """The test volume by the bicubic interpolation that published code uses, which is shifted."""
    output = recipes.work / "misaligned_bicubic.tif"
    if not output.is_file():
        truth, lowres = read_volume(recipes.data / "test.ome.tif"), read_volume(recipes.lowres("test"))
        planes = torch.Tensor.as_subclass(lowres, torch.Tensor)
        fine = misaligned_interpolation(planes, recipes.factor)
        slices = lattice.output_size(lowres.shape[-1], recipes.factor)
        fine = fine[..., :slices].clamp(planes.min(), planes.max())
        write_volume(MetaTensor(fine).copy_meta_from(truth), output)
    return output


def measure(work: Path, data: Path, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Train and score every row of every seed; returns what the page is made of."""
    truth, factor = data / "test.ome.tif", sizes["factor"]
    tables: dict[str, dict[str, Any]] = {"table 1": {}, "table 3": {}}
    for seed in sizes["seeds"]:
        recipes = Recipes(work, data, sizes, seed)
        for table, rows in (("table 1", recipes.table_1()), ("table 3", recipes.table_3())):
            for row in rows:
                begin = time.monotonic()
                run_stages(CONFIGS, row.stages)
                document = scores_of(row.volume, truth, factor)
                entry = tables[table].setdefault(row.title, {"kind": row.kind, "seeds": {}})
                entry["seeds"][str(seed)] = {
                    "scores": document["scores"]["result"],
                    "gain": document["gain over the better interpolation"],
                }
                print(f"{table}, {row.title}, seed {seed}: {time.monotonic() - begin:.0f} s", flush=True)
    recipes = Recipes(work, data, sizes, sizes["seeds"][0])
    document = scores_of(misaligned(recipes), truth, factor)
    baselines = {
        "bicubic as published code has it (misaligned)": document["scores"]["result"],
        "aligned linear": document["scores"]["linear"],
        "aligned cubic": document["scores"]["cubic"],
    }
    result = {"machine": machine(), "data": truth.name, "sizes": dict(sizes), "baselines": baselines, "tables": tables}
    write_json(work / "tables.json", result)
    return result


def page(result: Mapping[str, Any]) -> str:
    """The page of the documentation, in Markdown."""
    seeds = result["sizes"]["seeds"]
    lines = [
        "# Benchmarks",
        "",
        f"Written by `make benchmark` from its `tables.json`. {result['data']}, every {result['sizes']['factor']}th slice kept; {result['machine']}; "
        f"seeds {', '.join(map(str, seeds))}: the mean and, behind ±, half the range of the seeds. What was trained for how long, and by which rule it "
        "was chosen, stands in `benchmarks/tables.yaml`. PSNR in dB; means are rounded down, spreads up. XY leaves out the slices that coincide with "
        "an input slice, XZ and YZ include them.",
    ]
    for name, rows in result["tables"].items():
        head = " | ".join(f"{measure.upper()} {plane.upper()}" for measure in MEASURES for plane in PLANES)
        lines += ["", f"## {name.capitalize()}", "", f"| method | kind | {head} |", "|---|---|" + "---:|" * 6]
        if name == "table 1":
            lines += [
                f"| {title} | interpolation | {_cells([scores])} |" for title, scores in result["baselines"].items()
            ]
        for title, row in rows.items():
            lines.append(f"| {title} | {row['kind']} | {_cells([seed['scores'] for seed in row['seeds'].values()])} |")
    return "\n".join(lines) + "\n"


def _cells(scores: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    cells = []
    for measure, digits in zip(MEASURES, (2, 3)):
        for plane in PLANES:
            values = np.array([score[measure][plane] for score in scores])
            cell = f"{rounded_down(float(values.mean()), digits):.{digits}f}"
            if len(values) > 1:
                spread = -rounded_down(-float(np.ptp(values)) / 2, digits)
                cell += f" ± {spread:.{digits}f}"
            cells.append(cell)
    return " | ".join(cells)


def make_toy_data(folder: Path, factor: int) -> Path:
    """Two phantoms in the place of FIB-25."""
    for name, seed in (("train", 0), ("test", 1)):
        if not (folder / f"{name}.ome.tif").is_file():
            truth, _ = write_sample(folder / name, (64, 64, 16 * factor + 1), factor, seed)
            write_volume(read_volume(truth), folder / f"{name}.ome.tif")
    return folder


def main() -> None:
    """Train, score, and write the page."""
    sections = yaml.safe_load((Path(__file__).parent / "tables.yaml").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=sections, default="paper", help="a section of tables.yaml; toy needs no data")
    parser.add_argument("--data", type=Path, help="folder with train.ome.tif and test.ome.tif, isotropic")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs" / "tables", help="weights, volumes and scores go here"
    )
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md", help="the page to write")
    arguments = parser.parse_args()
    sizes = sections[arguments.size]
    if arguments.size == "toy":
        arguments.data = make_toy_data(arguments.work / "data", sizes["factor"])
    elif arguments.data is None:
        parser.error("--data: name the folder with train.ome.tif and test.ome.tif")
    arguments.work.mkdir(parents=True, exist_ok=True)
    result = measure(arguments.work, arguments.data.resolve(), sizes)
    write_whole(arguments.page, lambda partial: partial.write_text(page(result), encoding="utf-8"))
    print(f"wrote {arguments.work / 'tables.json'} and {arguments.page}")


if __name__ == "__main__":
    main()
