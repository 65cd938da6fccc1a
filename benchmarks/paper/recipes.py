# SPDX-License-Identifier: Apache-2.0
"""What has to run for each row of the benchmark's tables, as stages of the bundle's own configs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.paper.stages import Stage, make_stage
from benchmarks.paper.tasks import Task

SHIPPED = "the shipped weights"
SUPERVISED = "Sup-AENet"
TWICE = f"{SUPERVISED} for as long as teacher and student"
NO_DIFFUSION = "AENet at k = 1 (no diffusion)"
WHOLE_SRUNET = "D2R-SRUNet"
WHOLE = "D2R-AENet"
AGAIN = ", self-trained"
SELF_TRAINED = WHOLE + AGAIN


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        title: of the method.
        kind: supervised or self-supervised.
        stages: what runs, in order, until ``volume`` is there.
        task: what is reconstructed.
        volume: the reconstruction.
        predicted: the same with its input slices predicted too, where the method can; then it has a last stage of its
            own.
        pictured: whether its best and its worst part are drawn.
    """

    title: str
    kind: str
    stages: list[Stage] = field(repr=False)
    task: Task
    volume: Path
    predicted: Path | None = None
    pictured: bool = False


class Recipes:
    """The rows of one seed; what several of them need is made once.

    Args:
        work: folder of all results.
        data: folder with ``train.ome.tif`` and ``test.ome.tif``, isotropic.
        sizes: a section of ``tables.yaml``.
        seed: of all draws.

    Attributes:
        begin: stages that make the coarse volumes of the tables at one factor.
        task: of these tables.
        whole: folder of all of D2R, from the coarse training volume.
    """

    def __init__(self, work: Path, data: Path, sizes: Mapping[str, Any], seed: int) -> None:
        self.work, self.data, self.sizes, self.seed = work, data, sizes, seed
        self.factor = sizes["factor"]
        self.folder = work / f"seed{seed}"
        self.whole = self.folder / f"k{self.factor}"
        self.begin = [self._decimate("train"), self._decimate("test")]
        self.task = Task(data / "test.ome.tif", self.lowres("test"), self.factor)

    def table_1(self) -> Iterator[Row]:
        """Supervised and self-supervised networks."""
        truth = {"volume": self.data / "train.ome.tif", "sequence_axes": ["z"]}
        coarse = {"volume": self.lowres("train")}
        for network, title in (("srunet", "SRUNet"), ("aenet", SUPERVISED)):
            yield self._network(title, network, [], truth, self.folder / "supervised", kind="supervised")
        longer = {**truth, "max_epochs": 2 * self.sizes["aenet"]["max_epochs"]}
        yield self._network(TWICE, "aenet", [], longer, self.folder / "supervised" / "twice", kind="supervised")
        folder = self.folder / "k1"
        yield self._network(NO_DIFFUSION, "aenet", [], coarse, folder)
        yield self._network(NO_DIFFUSION + AGAIN, "aenet", *self._teach([], coarse, coarse["volume"], folder))
        prior, folder = self._prior(coarse["volume"], self.factor, self.whole), self.whole / "prior_on_test"
        alone = self._restore("the prior alone on test", prior, self.lowres("test"), folder, self.sizes["generate"])
        stages = [*self.begin, prior, alone]
        yield Row("the diffusion prior alone", "self-supervised", stages, self.task, Path(alone["result"]))
        first, pseudo = self._pseudo(coarse["volume"], self.factor, self.whole)
        for network, title in (("srunet", WHOLE_SRUNET), ("aenet", WHOLE)):
            yield self._network(title, network, first, pseudo, self.whole)
        taught = self._taught(coarse["volume"], self.whole)
        yield self._network(SELF_TRAINED, "aenet", *taught)
        yield self._network(f"{SELF_TRAINED}, test-time augmentation", "aenet", *taught, tta=True)
        if self.seed == self.sizes["seeds"][0]:
            yield self._shipped(SHIPPED, self.task, pictured=True)
        taught = self._taught(self.lowres("test"), self.folder / "own")
        yield self._network(f"{SELF_TRAINED} on the test volume's own slices", "aenet", *taught)

    def table_3(self) -> Iterator[Row]:
        """The prior factor k of stage II."""
        for prior_factor in self.sizes["prior_factors"]:
            folder = self.folder / f"k{prior_factor}"
            first, pseudo = self._pseudo(self.lowres("train"), prior_factor, folder)
            yield self._network(f"k = {prior_factor}", "aenet", first, pseudo, folder)

    def restorations(self) -> Iterator[Row]:
        """Stage II by other samplers, from the same prior, and what stage III learns from each."""
        coarse = self.lowres("train")
        prior = self._prior(coarse, self.factor, self.whole)
        for title, options in self.sizes["restorations"].items():
            folder = self.whole / title.replace(" ", "_")
            first, pseudo = self._restored(prior, folder, options)
            yield self._network(f"{WHOLE}, {title}", "aenet", first, pseudo, folder, predict=False)
            taught = self._teach(first, pseudo, coarse, folder)
            yield self._network(f"{SELF_TRAINED}, {title}", "aenet", *taught, predict=False)

    def other_lengths(self) -> Iterator[Row]:
        """Self-training for fewer steps, after the same teacher."""
        stages, learn, folder = self._taught(self.lowres("train"), self.whole)
        for epochs in self.sizes["epochs"]:
            yield self._network(
                self._title(epochs), "aenet", stages, *self._shorter(learn, folder, epochs), predict=False
            )

    def other_factors(self, tasks: Mapping[float, Task]) -> Iterator[Row]:
        """One network for all factors, as shipped and self-trained for fewer steps, beside one trained so long for a
        factor alone.

        Args:
            tasks: by factor. For one that is not whole, the network that knows it alone has learned the two whole ones
                around it.
        """
        stages, learn, folder = self._taught(self.lowres("train"), self.whole)
        epochs = self.sizes["factor_epochs"]
        learn, shorter = self._shorter(learn, folder, epochs)
        for factor, task in tasks.items():
            yield self._shipped(f"x{factor:g}: {SHIPPED}", task, predict=False)
            title = f"x{factor:g}: {self._title(epochs)}"
            yield self._network(title, "aenet", stages, learn, shorter, task=task, predict=False)
            around = [math.floor(factor), math.ceil(factor)]
            own = {**learn, "train_factors": around, "val_factor": around[0]}
            title = f"{title} on {' and '.join(f'x{each}' for each in sorted({*around}))} alone"
            yield self._network(title, "aenet", stages, own, folder / f"x{factor:g}", task=task, predict=False)

    def _title(self, epochs: int) -> str:
        return f"{SELF_TRAINED} for {epochs * self.sizes['aenet']['epoch_length']} steps"

    def _shorter(self, learn: Mapping[str, Any], folder: Path, epochs: int) -> tuple[dict[str, Any], Path]:
        """Stage III for fewer epochs: what it learns from, and its folder."""
        return {**learn, "max_epochs": epochs}, folder / f"{epochs}_epochs"

    def lowres(self, name: str) -> Path:
        """Every factor-th slice of a volume."""
        return self.work / f"{name}_lowres.tif"

    def _decimate(self, name: str) -> Stage:
        options = {"volume": self.data / f"{name}.ome.tif", "factor": self.factor, "output": self.lowres(name)}
        return make_stage(f"decimate {name}", "decimate.yaml", self.lowres(name), options)

    def _pseudo(self, volume: Path, prior_factor: int, folder: Path) -> tuple[list[Stage], dict[str, Any]]:
        """Stages I and II on a coarse volume, none for a prior factor of 1; and what stage III is to learn from."""
        if prior_factor == 1:
            return [], {"volume": volume}
        return self._restored(self._prior(volume, prior_factor, folder), folder, self.sizes["generate"])

    def _restored(self, prior: Stage, folder: Path, options: Mapping[str, Any]) -> tuple[list[Stage], dict[str, Any]]:
        """Stage I and, with these options, stage II on the same volume; and what stage III is to learn from."""
        known, title = prior["options"], f"pseudo-HR volume of {folder.name}"
        restore = self._restore(title, prior, known["volume"], folder / "pseudo", options)
        return [prior, restore], {"volume": restore["result"], "input_factor": known["prior_factor"]}

    def _prior(self, volume: Path, prior_factor: int, folder: Path) -> Stage:
        """Stage I on a coarse volume."""
        weights = folder / "prior" / "model_diffusion.pt"
        common = {"volume": volume, "factor": self.factor, "prior_factor": prior_factor, "seed": self.seed}
        train = {**self.sizes["prior"], **self.sizes["prior_network"], **common, "output_dir": weights.parent}
        return make_stage(f"train the prior of {folder.name}", "train_diffusion.yaml", weights, train)

    def _restore(self, title: str, prior: Stage, volume: str | Path, folder: Path, options: Mapping[str, Any]) -> Stage:
        """Stage II on a coarse volume, with these options."""
        common = {name: prior["options"][name] for name in ("factor", "prior_factor", "seed")}
        use = {**options, **common, "volume": volume, "weights": prior["result"]}
        return make_stage(title, "generate.yaml", folder / "pseudo_hr.tif", {**use, "output_dir": folder})

    def _teach(
        self, first: Sequence[Stage], learn: Mapping[str, Any], coarse: Path, folder: Path
    ) -> tuple[list[Stage], dict[str, Any], Path]:
        """What comes before self-training: the AENet of a folder, the teacher, and what it makes of the coarse volume.

        Returns:
            The stages, what the student is to learn from, and the student's folder.
        """
        teacher = self._train("aenet", learn, folder)
        made = folder / "taught" / "reconstruction.tif"
        options = {"volume": coarse, "factor": self.factor, "weights": teacher["result"]}
        teach = make_stage(f"{folder.name}: by the teacher", "inference.yaml", made, {**options, "output": made})
        return [*first, teacher, teach], {"volume": made, "input_factor": self.factor}, made.parent

    def _taught(self, coarse: Path, folder: Path) -> tuple[list[Stage], dict[str, Any], Path]:
        """What comes before self-training in the whole of D2R on a coarse volume; returns what :meth:`_teach` does."""
        return self._teach(*self._pseudo(coarse, self.factor, folder), coarse, folder)

    def _train(self, network: str, learn: Mapping[str, Any], folder: Path) -> Stage:
        """Stage III; ``learn`` has the options of what it learns from."""
        weights = folder / network / "model.pt"
        train = {**self.sizes[network], **self._size(network), "val_factor": self.factor, **learn}
        train.update(output_dir=weights.parent, seed=self.seed)
        return make_stage(f"train {network} of {folder.relative_to(self.folder)}", "train.yaml", weights, train)

    def _network(
        self,
        title: str,
        network: str,
        first: Sequence[Stage],
        learn: Mapping[str, Any],
        folder: Path,
        *,
        kind: str = "self-supervised",
        task: Task | None = None,
        predict: bool = True,
        **use: Any,
    ) -> Row:
        """Stage III after some stages, and use."""
        train = self._train(network, learn, folder)
        options = {"weights": train["result"], **use}
        task = task or self.task
        output = folder / "-".join([network, *use, self._name(task)])
        stages, predicted = self._reconstruct(output, task, options, predict and network == "aenet")
        return Row(title, kind, [*self.begin, *first, train, *stages], task, output, predicted)

    def _shipped(self, title: str, task: Task, predict: bool = True, pictured: bool = False) -> Row:
        """Use of the shipped weights."""
        output = self.folder / "shipped" / self._name(task)
        stages, predicted = self._reconstruct(output, task, {}, predict)
        return Row(title, "self-supervised", [*self.begin, *stages], task, output, predicted, pictured)

    def _name(self, task: Task) -> str:
        return "test.tif" if task == self.task else f"test_x{task.factor:g}.tif"

    def _reconstruct(
        self, output: Path, task: Task, options: Mapping[str, Any], predict: bool
    ) -> tuple[list[Stage], Path | None]:
        """A task with its input slices copied and, if asked for, predicted; returns the file of these too."""
        uses: list[dict[str, Any]] = [{"output": output}]
        predicted = None
        if predict:
            predicted = output.with_name(output.name.replace("test", "predicted-test"))
            uses.append({"output": predicted, "input_slices": "predict"})
        common = {"volume": task.lowres, "factor": task.factor, **options}
        stages = [
            make_stage(
                f"{output.parent.name}: {use['output'].stem}", "inference.yaml", use["output"], {**common, **use}
            )
            for use in uses
        ]
        return stages, predicted

    def _size(self, network: str) -> dict[str, Any]:
        return {
            "architecture": network,
            **(self.sizes["aenet_network"] if network == "aenet" else {"factor": self.factor}),
        }
