# SPDX-License-Identifier: Apache-2.0
"""What has to run for each row of the benchmark's tables, as stages of the bundle's own configs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SHIPPED = "the shipped weights"
Stage = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        title: of the method.
        kind: supervised or self-supervised.
        stages: what runs, in order, until ``volume`` is there.
        volume: the reconstruction of the test volume.
        predicted: the same with its kept slices predicted too, where the method can; then it has a last stage of its own.
        pictured: whether its best and its worst part are drawn.
    """

    title: str
    kind: str
    stages: list[Stage] = field(repr=False)
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
    """

    def __init__(self, work: Path, data: Path, sizes: Mapping[str, Any], seed: int) -> None:
        self.work, self.data, self.sizes, self.seed = work, data, sizes, seed
        self.factor = sizes["factor"]
        self.folder = work / f"seed{seed}"
        self.begin = [self._decimate("train"), self._decimate("test")]

    def table_1(self) -> Iterator[Row]:
        """Supervised and self-supervised networks."""
        truth, coarse = {"volume": self.data / "train.ome.tif", "axes": ["z"]}, {"volume": self.lowres("train")}
        for network, title in (("srunet", "SRUNet"), ("aenet", "Sup-AENet")):
            yield self._network(title, "supervised", network, [], truth, self.folder / "supervised")
        title = "AENet at k = 1 (no diffusion)"
        yield self._network(title, "self-supervised", "aenet", [], coarse, self.folder / "k1")
        folder = self.folder / f"k{self.factor}"
        first, pseudo = self._pseudo(coarse["volume"], self.factor, folder)
        volume = folder / "prior_on_test" / "pseudo_hr.tif"
        options = {**first[1]["options"], "volume": str(self.lowres("test")), "output_dir": str(volume.parent)}
        alone = self._stage("the prior alone on test", "generate.yaml", volume, options)
        yield Row("the diffusion prior alone", "self-supervised", [*self.begin, first[0], alone], volume)
        for network, title in (("srunet", "D2R-SRUNet"), ("aenet", "D2R-AENet")):
            yield self._network(title, "self-supervised", network, first, pseudo, folder)
        yield self._taught("D2R-AENet, self-trained", first, pseudo, coarse, folder)
        yield self._taught("D2R-AENet, self-trained, self-ensemble", first, pseudo, coarse, folder, ensemble=True)
        title = "AENet at k = 1 (no diffusion), self-trained"
        yield self._taught(title, [], coarse, coarse, self.folder / "k1")
        if self.seed == self.sizes["seeds"][0]:
            volume = self.folder / "shipped" / "test.tif"
            stages, predicted = self._reconstruct(volume, {})
            yield Row(SHIPPED, "self-supervised", [*self.begin, *stages], volume, predicted, True)
        folder, own = self.folder / "own", {"volume": self.lowres("test")}
        first, pseudo = self._pseudo(own["volume"], self.factor, folder)
        yield self._taught("D2R-AENet, self-trained on the test volume's own slices", first, pseudo, own, folder)

    def table_3(self) -> Iterator[Row]:
        """The upsampling k of stage II."""
        for upsampling in self.sizes["upsamplings"]:
            folder = self.folder / f"k{upsampling}"
            first, pseudo = self._pseudo(self.lowres("train"), upsampling, folder)
            yield self._network(f"k = {upsampling}", "self-supervised", "aenet", first, pseudo, folder)

    def lowres(self, name: str) -> Path:
        """Every factor-th slice of a volume."""
        return self.work / f"{name}_lowres.tif"

    def _decimate(self, name: str) -> Stage:
        options = {"volume": self.data / f"{name}.ome.tif", "factor": self.factor, "output": self.lowres(name)}
        return self._stage(f"decimate {name}", "decimate.yaml", self.lowres(name), options)

    def _pseudo(self, volume: Path, upsampling: int, folder: Path) -> tuple[list[Stage], dict[str, Any]]:
        """Stages I and II on a coarse volume, none for an upsampling of 1; and what stage III is to learn from."""
        if upsampling == 1:
            return [], {"volume": volume}
        prior, pseudo = folder / "prior" / "model_diffusion.pt", folder / "pseudo" / "pseudo_hr.tif"
        common = {"volume": volume, "factor": self.factor, "upsampling": upsampling, "seed": self.seed}
        network = self.sizes["prior_network"]
        train = {**self.sizes["prior"], **network, **common, "output_dir": prior.parent}
        restore = {**self.sizes["generate"], **network, **common, "weights": prior, "output_dir": pseudo.parent}
        return [
            self._stage(f"train the prior of {folder.name}", "train_diffusion.yaml", prior, train),
            self._stage(f"pseudo-HR volume of {folder.name}", "generate.yaml", pseudo, restore),
        ], {"volume": pseudo, "reconstruction_factor": upsampling}

    def _network(
        self, title: str, kind: str, network: str, first: Sequence[Stage], learn: Mapping[str, Any], folder: Path
    ) -> Row:
        """Stage III; ``learn`` has the options of the volume that it learns from."""
        return self._row(title, kind, network, [*first, self._train(network, learn, folder)])

    def _taught(
        self,
        title: str,
        first: Sequence[Stage],
        learn: Mapping[str, Any],
        coarse: Mapping[str, Any],
        folder: Path,
        **use: Any,
    ) -> Row:
        """AENet trained on what the AENet of the folder, its teacher, makes of the coarse volume."""
        teacher = self._train("aenet", learn, folder)
        made = folder / "taught" / "reconstruction.tif"
        options = {**coarse, "factor": self.factor, "weights": teacher["result"], **self._size("aenet")}
        teach = self._stage(f"{folder.name}: by the teacher", "inference.yaml", made, {**options, "output": made})
        train = self._train("aenet", {"volume": made, "reconstruction_factor": self.factor}, made.parent)
        return self._row(title, "self-supervised", "aenet", [*first, teacher, teach, train], **use)

    def _train(self, network: str, learn: Mapping[str, Any], folder: Path) -> Stage:
        weights = folder / network / "model.pt"
        train = {**self.sizes[network], **self._size(network), "val_gap": self.factor, **learn}
        train.update(output_dir=weights.parent, seed=self.seed)
        return self._stage(f"train {network} of {folder.relative_to(self.folder)}", "train.yaml", weights, train)

    def _row(self, title: str, kind: str, network: str, learn: Sequence[Stage], **use: Any) -> Row:
        """The use of what the last of some stages has trained."""
        weights = Path(learn[-1]["result"])
        folder = weights.parents[1]
        output = folder / "-".join([network, *use, "test.tif"])
        options = {"weights": weights, **self._size(network), **use}
        stages, predicted = self._reconstruct(output, options, predict=network == "aenet")
        return Row(title, kind, [*self.begin, *learn, *stages], output, predicted)

    def _reconstruct(
        self, output: Path, options: Mapping[str, Any], predict: bool = True
    ) -> tuple[list[Stage], Path | None]:
        """The test volume with copied kept slices and, if asked for, with predicted ones; returns the file of these too."""
        uses: list[dict[str, Any]] = [{"output": output}]
        predicted = None
        if predict:
            predicted = output.with_name(output.name.replace("test.tif", "predicted-test.tif"))
            uses.append({"output": predicted, "kept_slices": "predicted"})
        common = {"volume": self.lowres("test"), "factor": self.factor, **options}
        stages = [
            self._stage(
                f"{output.parent.name}: {use['output'].stem}", "inference.yaml", use["output"], {**common, **use}
            )
            for use in uses
        ]
        return stages, predicted

    def _size(self, network: str) -> dict[str, Any]:
        return {"network": network, **(self.sizes["aenet_network"] if network == "aenet" else {"factor": self.factor})}

    @staticmethod
    def _stage(title: str, config: str, result: Path, options: Mapping[str, Any]) -> Stage:
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
        return {"title": title, "config": config, "result": str(result), "skip": False, "options": plain}
