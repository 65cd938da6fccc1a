# SPDX-License-Identifier: Apache-2.0
"""The training step is the one of MONAI's trainer, and leaves what MONAI's handlers read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler, MeanSquaredError, StatsHandler, from_engine
from scripts.networks.aenet import AENet
from scripts.training.ema import EMA
from scripts.training.losses import ReconstructionLoss
from scripts.training.prepare_batch import SequencePrepareBatch
from scripts.training.seeding import SeedEachEpoch
from scripts.training.sequence_inferer import SequenceInferer
from scripts.training.step import TrainingStep, loss_of
from scripts.transforms.rand_sequences import RandSequencesd
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR


class Steps:
    """Stage III on a small volume, by MONAI's own step or by ours."""

    def __init__(self, device: str, ours: bool) -> None:
        torch.manual_seed(0)
        self.network = AENet(widths=(2, 2, 2, 2)).to(device)
        rate = torch.tensor(1e-2, device=device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), rate, capturable=device == "cuda")
        schedule: Any = CosineAnnealingLR(self.optimizer, 8)
        self.average = EMA(self.network, 0.25)
        dataset = CacheDataset(
            [{"image": torch.rand(1, 14, 14, 14, generator=torch.Generator().manual_seed(0), device="cpu").to(device)}],
            RandSequencesd("image", (14, 14), (2, 3), num_samples=2),
            progress=False,
            copy_cache=False,
        )
        self.losses: list[float] = []
        self.trainer = SupervisedTrainer(
            device=device,
            max_epochs=8,
            train_data_loader=DataLoader(dataset, batch_size=1),
            network=self.network,
            optimizer=self.optimizer,
            loss_function=ReconstructionLoss(),
            prepare_batch=SequencePrepareBatch(),
            inferer=SequenceInferer(),
            iteration_update=TrainingStep() if ours else None,
            train_handlers=[SeedEachEpoch(0, dataset), LrScheduleHandler(schedule, print_lr=False), self.average],
            decollate=not ours,
        )
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: self.losses.append(loss_of(engine)))
        self.trainer.run()


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_step_is_the_one_of_the_trainer(device):
    """On CUDA the fourth step is recorded and the others replay it: with the schedule's learning rate, on new
    batches."""
    ours, theirs = Steps(device, True), Steps(device, False)
    assert len(set(ours.losses)) == 8
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-3 if device == "cuda" else 1e-6)
    for name, value in theirs.network.state_dict().items():
        assert torch.allclose(ours.network.state_dict()[name], value, atol=1e-3 if device == "cuda" else 1e-6), name
    for name, value in theirs.average.network.state_dict().items():
        assert torch.allclose(ours.average.network.state_dict()[name], value, atol=1e-3), name


def test_large_gradients_are_scaled_down():
    layer = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), 1.0)
    for factor, expected in ((0.5, 0.5), (100.0, 2.0)):
        nn.init.zeros_(layer.weight)
        trainer = SupervisedTrainer(
            device="cpu",
            max_epochs=1,
            train_data_loader=[{"image": torch.full((1, 1), factor), "label": torch.zeros(1, 1)}],
            network=layer,
            optimizer=optimizer,
            loss_function=lambda prediction, target: (prediction - target).sum(),
            iteration_update=TrainingStep(max_grad_norm=2.0),
            decollate=False,
        )
        trainer.run()
        assert layer.weight.item() == pytest.approx(-expected, rel=1e-4)


def test_output_is_what_handlers_of_monai_read(capsys):
    """An item for each sample, so that MONAI's handlers and metrics work as with its own trainer."""
    layer = nn.Linear(2, 2)
    batch = {"image": torch.rand(3, 2), "label": torch.rand(3, 2)}
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[batch],
        network=layer,
        optimizer=torch.optim.SGD(layer.parameters(), 0.0),
        loss_function=nn.MSELoss(),
        iteration_update=TrainingStep(),
        key_train_metric={"mse": MeanSquaredError(output_transform=from_engine(["pred", "label"]))},
        train_handlers=[StatsHandler(name="toy", output_transform=from_engine(["loss"], first=True))],
        decollate=False,
    )
    trainer.run()
    output = trainer.state.output
    assert [set(item) for item in output] == [{"image", "label", "pred", "loss"}] * 3
    for name in ("image", "label"):
        assert torch.equal(torch.stack([item[name] for item in output]), batch[name])
    pred = torch.stack([item["pred"] for item in output])
    assert torch.equal(pred, layer(batch["image"]).detach()) and not pred.requires_grad
    expected = nn.functional.mse_loss(pred, batch["label"]).item()
    assert [item["loss"].item() for item in output] == pytest.approx([expected] * 3)
    assert trainer.state.metrics["mse"] == pytest.approx(expected)
    assert f"Loss: {expected:.4f}" in capsys.readouterr().out


def test_output_splits_targets_of_several_parts():
    """The target of stage I is a mapping."""
    layer = nn.Identity()
    layer.weight = nn.Parameter(torch.ones(()))
    step = TrainingStep()
    engine = SimpleNamespace(
        state=SimpleNamespace(device="cpu"),
        non_blocking=False,
        network=layer,
        optimizer=torch.optim.SGD(layer.parameters(), 0.0),
        loss_function=lambda pred, target: (pred - target["mean"]).mean(),
        inferer=lambda image, network: image * network.weight,
        prepare_batch=lambda batch, *_: (batch["image"], {"mean": batch["image"] + 1, "gain": batch["image"] + 2}),
    )
    output = step(engine, {"image": torch.arange(2.0)[:, None]})
    assert [item["label"] for item in output] == [{"mean": 1, "gain": 2}, {"mean": 2, "gain": 3}]
