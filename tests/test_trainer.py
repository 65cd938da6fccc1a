# SPDX-License-Identifier: Apache-2.0
"""The trainer and the evaluator of both trainings: what they log, validate and save, in which order, and what can be
added."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from monai.data import CacheDataset
from monai.handlers import MeanSquaredError, PeakSignalToNoiseRatio, ValidationHandler, from_engine
from scripts.errors import InputError
from scripts.networks.aenet import AENet
from scripts.phantom import write_sample
from scripts.training.ema import EMA
from scripts.training.evaluator import VolumeEvaluator
from scripts.training.losses import ReconstructionLoss
from scripts.training.output_folder import OutputFolder
from scripts.training.prepare_batch import SequencePrepareBatch
from scripts.training.sequence_inferer import SequenceInferer
from scripts.training.trainer import VolumeTrainer
from scripts.transforms.rand_sequences import RandSequencesd
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CONFIGS = Path(__file__).resolve().parents[1] / "bundle" / "configs"


class Toy:
    """A stage III of two epochs of three steps, with a validation after each."""

    def __init__(self, folder: Path, **options: Any) -> None:
        torch.manual_seed(0)
        volume = torch.rand(1, 14, 14, 14)
        dataset = CacheDataset([{"image": volume}], RandSequencesd("image", (14, 14), (2, 3)), progress=False)
        network = AENet(widths=(2, 2, 2, 2))
        self.optimizer = torch.optim.Adam(network.parameters(), 1e-2)
        self.ema = EMA(network, 0.5)
        self.output = OutputFolder(folder, "model.pt", {}, {"seed": 0}, 2)
        common: Any = {
            "device": torch.device("cpu"),
            "dataset": dataset,
            "inferer": SequenceInferer(),
            "prepare_batch": SequencePrepareBatch(),
            "output": self.output,
            "seed": 0,
        }
        psnr = PeakSignalToNoiseRatio(max_val=1.0, output_transform=from_engine(["pred", "label"]))
        self.evaluator = VolumeEvaluator(network=self.ema.network, key_val_metric={"psnr": psnr}, **common)
        self.trainer = VolumeTrainer(
            max_epochs=2,
            epoch_length=3,
            network=network,
            ema=self.ema,
            optimizer=self.optimizer,
            loss_function=ReconstructionLoss(),
            description="toy",
            train_handlers=[ValidationHandler(interval=1, validator=self.evaluator)],
            **common,
            **options,
        )


def test_curves_and_checkpoint_of_a_training(tmp_path):
    toy = Toy(tmp_path)
    there: list[bool] = []
    toy.evaluator.add_event_handler(Events.STARTED, lambda: there.append(toy.output.checkpoint.exists()))
    toy.trainer.run()
    assert there == [False, True]  # an epoch is validated before its checkpoint is saved
    curves = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in curves.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    for name in ("psnr", "ssim"):
        assert [event.step for event in curves.Scalars(name)] == [1, 2]
    checkpoint = torch.load(toy.output.checkpoint, weights_only=True)
    assert set(checkpoint) == {
        *("network", "ema", "optimizer", "lr_scheduler"),
        *("resume_must_match", "epoch", "iteration"),
    }
    for name, value in toy.ema.network.state_dict().items():
        assert torch.equal(checkpoint["ema"][name], value)
        if value.is_floating_point() and value.ndim > 1:
            assert not torch.equal(checkpoint["network"][name], value)


def test_learning_rate_falls_along_a_cosine_to_almost_nothing(tmp_path):
    toy = Toy(tmp_path)
    rates: list[float] = []
    toy.trainer.add_event_handler(
        Events.ITERATION_STARTED, lambda: rates.append(float(toy.optimizer.param_groups[0]["lr"]))
    )
    toy.trainer.run()
    rates.append(float(toy.optimizer.param_groups[0]["lr"]))
    cosine = 1e-6 + (1e-2 - 1e-6) * (1 + torch.cos(torch.linspace(0, torch.pi, 7))) / 2
    assert rates == pytest.approx(cosine.tolist(), rel=1e-3, abs=1e-8)


def test_a_diverged_epoch_is_neither_validated_nor_saved(tmp_path):
    toy = Toy(tmp_path)
    validated: list[int] = []
    toy.evaluator.add_event_handler(Events.STARTED, lambda: validated.append(toy.trainer.state.epoch))

    def diverge(engine: Engine) -> None:
        if engine.state.epoch == 2:
            next(toy.ema.network.parameters()).fill_(float("nan"))  # which the loss does not show

    toy.trainer.add_event_handler(Events.EPOCH_STARTED, diverge)
    with pytest.raises(InputError, match="diverged in epoch 2 of 2 .* of epoch 1, and is kept"):
        toy.trainer.run()
    assert validated == [1]
    assert torch.load(toy.output.checkpoint, weights_only=True)["epoch"] == 1


def test_metric_of_the_training_can_be_added(tmp_path):
    metric = MeanSquaredError(output_transform=from_engine(["pred", "label"]))
    toy = Toy(tmp_path, key_train_metric={"mse": metric})
    toy.trainer.run()
    assert 0 < toy.trainer.state.metrics["mse"] < 1


@pytest.mark.parametrize("config", ["train.yaml", "train_diffusion.yaml"])
def test_monai_finds_the_properties_of_a_training(config, tmp_path, monkeypatch):
    """From any folder, and before the run."""
    monkeypatch.chdir(tmp_path)
    write_sample(tmp_path, (32, 32, 17), 4)
    options: dict[str, Any] = {"volume": "sample_truth.tif", "patch_size": [16, 16], "output_dir": "out"}
    options |= {"train_factors": [2, 3]} if config == "train.yaml" else {"factor": 4, "width": 4}
    workflow = ConfigWorkflow(str(CONFIGS / config), workflow_type="train", logging_file=False, **options)
    workflow.initialize()
    assert workflow.check_properties() == []
    assert workflow.train_handlers and workflow.val_key_metric and workflow.val_interval
