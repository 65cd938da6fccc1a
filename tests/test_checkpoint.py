# SPDX-License-Identifier: Apache-2.0
"""A training resumes where it stopped, from a checkpoint that is whole, finite and its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import CacheDataset
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from scripts.errors import InputError
from scripts.networks.aenet import AENet
from scripts.training.checkpoint import CheckpointHandler
from scripts.training.divergence import StopOnDivergence
from scripts.training.ema import EMA
from scripts.training.losses import ReconstructionLoss
from scripts.training.prepare_batch import SequencePrepareBatch
from scripts.training.progress_bar import TrainingProgressBar
from scripts.training.seeding import SeedEachEpoch
from scripts.training.sequence_inferer import SequenceInferer
from scripts.training.step import TrainingStep
from scripts.training.volume_loader import VolumeLoader
from scripts.transforms.rand_sequences import RandSequencesd
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

MUST_MATCH = {
    "train_factors": [2, 3],
    "widths": [2, 2, 2, 2],
    "seed": 0,
    "factor": 6.5,
    "volume": "a.tif",
    "truth": None,
}


# ---- resume ----------------------------------------------------------------------------------------------------------


class Run:
    """A toy stage III with the handlers of configs/train.yaml."""

    scheduler: Any

    def __init__(self, path, epochs: int, must_match: dict = MUST_MATCH, interval: int = 1) -> None:
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
        self.progress = TrainingProgressBar("toy")
        self.trainer = SupervisedTrainer(
            device="cpu",
            max_epochs=epochs,
            train_data_loader=VolumeLoader(dataset, epoch_length=2),
            network=self.network,
            optimizer=self.optimizer,
            loss_function=ReconstructionLoss(),
            prepare_batch=SequencePrepareBatch(),
            inferer=SequenceInferer(),
            train_handlers=[
                ema,
                LrScheduleHandler(self.scheduler, epoch_level=False, print_lr=False),
                StopOnDivergence(objects, path, interval),
                CheckpointHandler(path, objects, must_match),
                SeedEachEpoch(0, dataset),
                self.progress,
            ],
            iteration_update=TrainingStep(),
            decollate=False,
        )
        self.trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine: self.losses.append(engine.state.output[0]["loss"].item())
        )


@pytest.mark.slow
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
    bar = second.progress.bar
    assert bar is not None and (bar.n, bar.total) == (8, 8)
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


@pytest.mark.slow
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


def test_a_state_that_is_not_finite_is_not_taken_up(checkpoint):
    state = torch.load(checkpoint, weights_only=True)
    state["network"]["bias"][0] = float("inf")
    torch.save(state, checkpoint)
    assert "network.bias is NaN or infinite: the training diverged; delete it" in attempt(checkpoint, MUST_MATCH)


def attempt(path, must_match) -> str:
    """Message of the error that a run that must match ``must_match`` ends in."""
    layer = nn.Linear(1, 1)
    engine = Engine(lambda engine, batch: None)
    CheckpointHandler(path, {"network": layer}, must_match).attach(engine)
    with pytest.raises(InputError) as caught:
        engine.run([0], max_epochs=1)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "checkpoint.pt"
    engine = Engine(lambda engine, batch: None)
    CheckpointHandler(path, {"network": nn.Linear(1, 1)}, MUST_MATCH).attach(engine)
    engine.run([0], max_epochs=1)
    return path


@pytest.mark.parametrize(
    "change", [{"train_factors": [2, 12]}, {"factor": 8.0}, {"volume": "b.tif"}, {"truth": "t.tif"}, {"new": 1}]
)
def test_other_options_and_inputs_are_refused(checkpoint, change):
    before = checkpoint.read_bytes()
    message = attempt(checkpoint, MUST_MATCH | change)
    assert next(iter(change)) in message and str(next(iter(change.values()))) in message
    assert "another output folder" in message
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_damaged_checkpoint(checkpoint, share):
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: int(share * len(data))])
    assert "damaged checkpoint; delete it" in attempt(checkpoint, MUST_MATCH)


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
    assert "damaged checkpoint; delete it" in attempt(tmp_path / "checkpoint.pt", MUST_MATCH)


def lacks(name):
    return lambda state: state.pop(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        *map(lacks, ("resume_must_match", "epoch", "iteration", "network", "ema", "optimizer", "schedule")),
        lambda state: state.update(epoch="1"),
        lambda state: state.update(iteration=-1),
        lambda state: state.update(resume_must_match=[1]),
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
    message = attempt(checkpoint, MUST_MATCH | {"volume": lambda: identity})
    assert "of an earlier version" in message and "give another output folder" in message


def test_weights_in_place_of_a_checkpoint(checkpoint):
    torch.save({"weight": torch.zeros(1)}, checkpoint)
    assert "damaged checkpoint" in attempt(checkpoint, MUST_MATCH)


def test_kill_while_writing_leaves_the_last_checkpoint(checkpoint, monkeypatch):
    before = checkpoint.read_bytes()

    def killed(path, content):
        path.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", killed)
    resume = CheckpointHandler(checkpoint, {"network": nn.Linear(1, 1)}, MUST_MATCH)
    engine = Engine(lambda engine, batch: None)
    with pytest.raises(KeyboardInterrupt):
        resume.save(engine)
    assert checkpoint.read_bytes() == before
