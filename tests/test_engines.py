# SPDX-License-Identifier: Apache-2.0
"""What MONAI's trainers are given: batches, steps, averages, seeds, and runs that go on where they stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.transforms import Compose
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from scripts.diffusion.sde import MeanRevertingSDE
from scripts.errors import InputError
from scripts.networks.aenet import AENet
from scripts.training.checkpoint import Resume
from scripts.training.handlers import EMA, RunProgress, SeedEachEpoch, StopDiverged
from scripts.training.losses import ReconstructionLoss
from scripts.training.prepare_batch import NoisePrepareBatch, RestorationPrepareBatch, SequencePrepareBatch
from scripts.training.sequence_inferer import SequenceInferer
from scripts.training.step import TrainingStep
from scripts.transforms.rand_sequences import RandSequencesd

SETTINGS = {"train_factors": [2, 3], "widths": [2, 2, 2, 2], "seed": 0, "factor": 6.5, "volume": "a.tif", "truth": None}


# ---- batches ---------------------------------------------------------------------------------------------------------


def test_noise_batch_belongs_together():
    torch.manual_seed(0)
    sde = MeanRevertingSDE()
    x0, mu = torch.rand(2, 300, 1, 6, 6)
    inputs, target, (t,), options = NoisePrepareBatch(sde)({"image": MetaTensor(x0), "mu": MetaTensor(mu)}, "cpu")
    assert options == {} and not isinstance(inputs, MetaTensor)
    assert inputs.shape == (300, 2, 6, 6)
    assert torch.equal(inputs[:, 1:], mu)
    assert t.min() >= 1 and t.max() <= 100 and len(t.unique()) > 85

    x = inputs[:, :1] + mu
    noise = (x - mu - sde.decay(t) * (x0 - mu)) / sde.std(t)
    assert noise.mean().item() == pytest.approx(0, abs=0.05) and noise.std().item() == pytest.approx(1, abs=0.05)
    for i in (0, 100, 200):
        one = slice(i, i + 1)
        of_state, gain = sde.reverse_drift(t[one])
        assert torch.allclose(target["mean"][one], x[one] + of_state * (x - mu)[one])
        assert torch.equal(target["gain"][one], gain)
        bridge = sde.bridge(t[one], t[one] - 1)
        optimum = mu[one] + bridge.from_state * (x - mu)[one] + bridge.from_clean * (x0 - mu)[one]
        assert torch.allclose(target["optimum"][one], optimum)


def test_optimum_of_the_first_state_is_the_image():
    sde = MeanRevertingSDE(timesteps=1)
    x0, mu = torch.rand(2, 4, 1, 6, 6)
    _, target, (t,), _ = NoisePrepareBatch(sde)({"image": x0, "mu": mu})
    assert t.tolist() == [1] * 4
    assert torch.allclose(target["optimum"], x0, atol=1e-5)


def test_restoration_batch():
    inputs, target = RestorationPrepareBatch()({"image": torch.ones(1, 1, 2, 2), "mu": torch.zeros(1, 1, 2, 2)})
    assert not inputs.any() and target.all()


def test_sequence_batch():
    item = RandSequencesd("image", (8, 8), (2, 3), depths=2)({"image": torch.rand(1, 12, 12, 12)})[0]
    batch = {name: value[None] for name, value in item.items()}
    window, label, (depth, gap), _ = SequencePrepareBatch()(batch, "cpu")
    assert (window.shape, label.shape, depth.shape, gap.shape) == ((1, 1, 8, 8, 4), (1, 2, 8, 8), (1, 2), (1,))


# ---- seeds -----------------------------------------------------------------------------------------------------------


def random_dataset() -> CacheDataset:
    transform = Compose([RandSequencesd("image", (6, 6), (2, 3), num_samples=2)])
    volume = torch.rand(1, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    return CacheDataset([{"image": volume}], transform, progress=False)


def draws(vary: bool, epochs: int, first: int = 1, seed: int = 0) -> list[tuple[float, float]]:
    """A number from torch and one from the data for each epoch of a run that begins at epoch ``first``."""
    found = []
    dataset = random_dataset()
    engine = Engine(lambda engine, batch: None)
    SeedEachEpoch(seed, dataset, vary).attach(engine)
    engine.add_event_handler(Events.STARTED, lambda: setattr(engine.state, "epoch", first - 1))
    engine.add_event_handler(
        Events.EPOCH_COMPLETED, lambda: found.append((torch.rand(()).item(), dataset[0][0]["image"].sum().item()))
    )
    torch.manual_seed(1234 + first)
    engine.run([0], max_epochs=epochs)
    return found


def test_an_epoch_draws_the_same_in_a_resumed_run():
    whole = draws(True, 4)
    assert len(set(whole)) == 4 and len({data for _, data in whole}) == 4
    assert draws(True, 4, first=3) == whole[2:]
    assert draws(True, 4, seed=1) != whole


def test_validation_draws_the_same_each_time():
    assert len(set(draws(False, 3))) == 1


# ---- steps and averages ----------------------------------------------------------------------------------------------


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
            train_handlers=[
                SeedEachEpoch(0, dataset),
                LrScheduleHandler(schedule, print_lr=False),
                self.average,
            ],
            decollate=False,
        )
        self.trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine: self.losses.append(float(engine.state.output["loss"]))
        )
        self.trainer.run()


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.mark.parametrize("device", DEVICES)
def test_step_is_the_one_of_the_trainer(device):
    """On CUDA the fourth step is recorded and the others replay it: with the schedule's learning rate, on new batches."""
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


def test_average_follows_slowly():
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    average = EMA(layer, 0.25)
    engine = Engine(lambda engine, batch: nn.init.ones_(layer.weight))
    average.attach(engine)
    engine.run([0, 0])
    assert average.network.weight.item() == pytest.approx(1 - 0.75**2)
    assert not average.network.training and not average.network.weight.requires_grad


# ---- resume ----------------------------------------------------------------------------------------------------------


class Run:
    """A toy stage III with the handlers of configs/train.yaml."""

    scheduler: Any

    def __init__(self, path, epochs: int, settings: dict = SETTINGS, interval: int = 1) -> None:
        torch.manual_seed(99)
        self.network = AENet(widths=(2, 2, 2, 2))
        self.optimizer = torch.optim.Adam(self.network.parameters(), 1e-2)
        self.scheduler = CosineAnnealingLR(self.optimizer, 8)
        self.losses: list[float] = []
        ema = EMA(self.network, momentum=0.1)
        self.ema = ema.network
        objects = {"network": self.network, "ema": self.ema, "optimizer": self.optimizer, "schedule": self.scheduler}
        dataset = CacheDataset(
            [{"image": torch.rand(1, 14, 14, 14, generator=torch.Generator().manual_seed(0))}],
            RandSequencesd("image", (14, 14), (2, 3), num_samples=2),
            progress=False,
            copy_cache=False,
        )
        self.progress = RunProgress("toy")
        self.trainer = SupervisedTrainer(
            device="cpu",
            max_epochs=epochs,
            train_data_loader=DataLoader(
                dataset, batch_size=1, sampler=torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=2)
            ),
            network=self.network,
            optimizer=self.optimizer,
            loss_function=ReconstructionLoss(),
            prepare_batch=SequencePrepareBatch(),
            inferer=SequenceInferer(),
            train_handlers=[
                ema,
                LrScheduleHandler(self.scheduler, epoch_level=False, print_lr=False),
                StopDiverged(objects, path, interval),
                Resume(path, objects, settings),
                SeedEachEpoch(0, dataset),
                self.progress,
            ],
        )
        self.trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine: self.losses.append(engine.state.output[0]["loss"])
        )


def test_resumed_run_is_the_run_it_continues(tmp_path):
    whole = Run(tmp_path / "whole" / "checkpoint.pt", 4)
    whole.trainer.run()
    path = tmp_path / "parts" / "checkpoint.pt"
    first = Run(path, 2)
    first.trainer.run()
    second = Run(path, 4)
    second.trainer.run()

    assert (second.trainer.state.epoch, second.trainer.state.iteration) == (4, 8)
    assert first.losses + second.losses == pytest.approx(whole.losses, rel=1e-5)
    for mine, theirs in ((second.network, whole.network), (second.ema, whole.ema)):
        for name, value in theirs.state_dict().items():
            assert torch.allclose(mine.state_dict()[name], value, atol=1e-6), name
    assert second.optimizer.param_groups[0]["lr"] == whole.optimizer.param_groups[0]["lr"] < 1e-2
    assert (second.progress.bar.n, second.progress.bar.total) == (8, 8)
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]


def test_finished_run_does_nothing(tmp_path):
    path = tmp_path / "checkpoint.pt"
    done = Run(path, 1)
    done.trainer.run()
    again = Run(path, 1)
    again.trainer.run()
    assert again.losses == []
    for name, value in done.ema.state_dict().items():
        assert torch.equal(again.ema.state_dict()[name], value)


def test_killed_epoch_is_begun_anew(tmp_path):
    path = tmp_path / "checkpoint.pt"
    whole = Run(tmp_path / "whole.pt", 2)
    whole.trainer.run()
    killed = Run(path, 2)

    def kill(engine):
        if engine.state.iteration == 3:
            raise KeyboardInterrupt

    killed.trainer.add_event_handler(Events.ITERATION_COMPLETED, kill)
    with pytest.raises(KeyboardInterrupt):
        killed.trainer.run()
    resumed = Run(path, 2)
    resumed.trainer.run()
    assert resumed.losses == pytest.approx(whole.losses[2:], rel=1e-5)


# ---- divergence ------------------------------------------------------------------------------------------------------


def diverge(run: Run, epoch: int, damage) -> str:
    """Message of the error that a run ends in which ``damage(run)`` meets in the first step of an epoch."""
    run.trainer.add_event_handler(Events.EPOCH_STARTED(once=epoch), lambda: damage(run))
    with pytest.raises(InputError) as caught:
        run.trainer.run()
    message = str(caught.value)
    assert "\n" not in message and "--learning_rate" in message and "another --output_dir" in message
    return message


def blow_up(run: Run) -> None:
    """One step of an absurd learning rate."""
    for group in run.optimizer.param_groups:
        group["lr"] = 1e30


@pytest.mark.parametrize("interval", [1, 20])  # by the loss, and by the state at the end of the epoch
def test_diverged_training_keeps_the_last_good_checkpoint(tmp_path, interval):
    path = tmp_path / "checkpoint.pt"
    run = Run(path, 4, interval=interval)
    good: list[bytes] = []
    run.trainer.add_event_handler(Events.EPOCH_COMPLETED(once=2), lambda: good.append(path.read_bytes()))
    message = diverge(run, 3, blow_up)
    assert f"diverged in epoch 3 of 4 ({'loss' if interval == 1 else 'network.'}" in message
    assert f"{path} is the last good checkpoint, of epoch 2, and is kept" in message
    assert [path.read_bytes()] == good and list(tmp_path.iterdir()) == [path]


def test_training_that_diverges_at_once_leaves_no_checkpoint(tmp_path):
    assert "no epoch was finished before" in diverge(Run(tmp_path / "checkpoint.pt", 2), 1, blow_up)
    assert list(tmp_path.iterdir()) == []


def average(run: Run) -> Any:
    return run.ema.get_parameter("stem.bias")


def momentum(run: Run) -> Any:
    return next(iter(run.optimizer.state.values()))["exp_avg_sq"]


@pytest.mark.parametrize("part, name", [(average, "ema.stem.bias"), (momentum, "optimizer.state.0.exp_avg_sq")])
def test_whatever_is_not_finite_is_not_written(tmp_path, part, name):
    """The loss may stay finite: nothing of the average enters it, and a step divided by infinity is none."""
    message = diverge(Run(tmp_path / "checkpoint.pt", 4), 2, lambda run: part(run).fill_(float("inf")))
    assert f"({name} is NaN or infinite)" in message and "of epoch 1, and is kept" in message


def test_a_state_that_is_not_finite_is_never_written_nor_taken_up(checkpoint):
    before = checkpoint.read_bytes()
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, float("nan"))
    engine = Engine(lambda engine, batch: None)
    with pytest.raises(InputError, match="network.weight is NaN"):
        Resume(checkpoint, {"network": layer}, SETTINGS).save(engine)
    assert checkpoint.read_bytes() == before
    state = torch.load(checkpoint, weights_only=True)
    state["network"]["bias"][0] = float("inf")
    torch.save(state, checkpoint)
    assert "network.bias is NaN or infinite: the training diverged; delete it" in attempt(checkpoint, SETTINGS)


def attempt(path, settings) -> str:
    """Message of the error that a run with ``settings`` ends in."""
    layer = nn.Linear(1, 1)
    engine = Engine(lambda engine, batch: None)
    Resume(path, {"network": layer}, settings).attach(engine)
    with pytest.raises(InputError) as caught:
        engine.run([0], max_epochs=1)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "checkpoint.pt"
    engine = Engine(lambda engine, batch: None)
    Resume(path, {"network": nn.Linear(1, 1)}, SETTINGS).attach(engine)
    engine.run([0], max_epochs=1)
    return path


@pytest.mark.parametrize(
    "change", [{"train_factors": [2, 12]}, {"factor": 8.0}, {"volume": "b.tif"}, {"truth": "t.tif"}, {"new": 1}]
)
def test_other_settings_are_refused(checkpoint, change):
    before = checkpoint.read_bytes()
    message = attempt(checkpoint, SETTINGS | change)
    assert next(iter(change)) in message and str(next(iter(change.values()))) in message
    assert "another output folder" in message
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_damaged_checkpoint(checkpoint, share):
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: int(share * len(data))])
    assert "damaged checkpoint; delete it" in attempt(checkpoint, SETTINGS)


def test_a_flipped_byte_in_a_checkpoint_is_found(tmp_path):
    """PyTorch takes it in silence where it is one of a weight."""
    run = Run(tmp_path / "checkpoint.pt", 1)
    run.trainer.run()
    content = bytearray((tmp_path / "checkpoint.pt").read_bytes())
    weight = next(run.network.parameters()).detach().numpy().tobytes()
    content[content.index(weight) + 5] ^= 1
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(InputError, match="damaged checkpoint; delete it"):
        Run(tmp_path / "checkpoint.pt", 2).trainer.run()


def test_a_folder_in_place_of_a_checkpoint(tmp_path):
    (tmp_path / "checkpoint.pt").mkdir()
    assert "damaged checkpoint; delete it" in attempt(tmp_path / "checkpoint.pt", SETTINGS)


def lacks(name):
    return lambda state: state.pop(name)


@pytest.mark.parametrize(
    "change",
    [
        *map(lacks, ("settings", "epoch", "iteration", "network", "ema", "optimizer", "schedule")),
        lambda state: state.update(epoch="1"),
        lambda state: state.update(iteration=-1),
        lambda state: state.update(settings=[1]),
        lambda state: state.update(network=3),
        lambda state: state["network"].popitem(),
        lambda state: state["network"].update({key: torch.zeros(1) for key in state["network"]}),
        lambda state: state["ema"].update(more=torch.zeros(1)),
        lambda state: state["optimizer"]["param_groups"][0]["params"].pop(),
        lambda state: state["optimizer"]["state"][0].update(exp_avg=torch.zeros(2, 2)),
        lambda state: state["optimizer"]["state"][0].pop("exp_avg"),
        lambda state: state["schedule"].clear(),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named(tmp_path, change):
    path = tmp_path / "checkpoint.pt"
    Run(path, 1).trainer.run()
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    with pytest.raises(InputError) as caught:
        Run(path, 2).trainer.run()
    assert str(caught.value).startswith(f"{path}: damaged checkpoint; delete it to begin this stage anew (")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_a_longer_run_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    Run(path, 2).trainer.run()
    with pytest.raises(InputError, match="with 2 epochs, more than --max_epochs 1"):
        Run(path, 1).trainer.run()


def test_an_earlier_version_did_not_record_what_the_volume_is(checkpoint):
    identity = {"digest": "x", "name": "a.tif"}
    message = attempt(checkpoint, SETTINGS | {"volume": lambda: identity})
    assert "of an earlier version" in message and "give another output folder" in message


def test_weights_in_place_of_a_checkpoint(checkpoint):
    torch.save({"weight": torch.zeros(1)}, checkpoint)
    assert "damaged checkpoint" in attempt(checkpoint, SETTINGS)


def test_kill_while_writing_leaves_the_last_checkpoint(checkpoint, monkeypatch):
    before = checkpoint.read_bytes()

    def killed(path, content):
        path.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", killed)
    resume = Resume(checkpoint, {"network": nn.Linear(1, 1)}, SETTINGS)
    engine = Engine(lambda engine, batch: None)
    with pytest.raises(KeyboardInterrupt):
        resume.save(engine)
    assert checkpoint.read_bytes() == before


def test_progress_shows_the_loss(tmp_path, capsys):
    run = Run(tmp_path / "checkpoint.pt", 1)
    run.trainer.run()
    shown = capsys.readouterr().err
    assert "toy" in shown and "2/2" in shown and "loss=" in shown
    assert np.isfinite(run.losses).all()
