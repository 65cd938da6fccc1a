# SPDX-License-Identifier: Apache-2.0
"""What goes with the training steps: seeds, the average of the weights, the progress bar."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import CacheDataset
from monai.transforms import Compose
from scripts.training.ema import EMA
from scripts.training.progress_bar import TrainingProgressBar
from scripts.training.seeding import SeedEachEpoch
from scripts.transforms.rand_sequences import RandSequencesd
from torch import nn


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


def test_average_follows_slowly():
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    average = EMA(layer, 0.25)
    engine = Engine(lambda engine, batch: nn.init.ones_(layer.weight))
    average.attach(engine)
    engine.run([0, 0])
    weight = average.network.get_parameter("weight")
    assert weight.item() == pytest.approx(1 - 0.75**2)
    assert not average.network.training and not weight.requires_grad


def test_short_run_forgets_its_initial_weights_faster():
    layer = nn.Linear(1, 1)
    assert EMA(layer, 0.002, num_steps=100_000).momentum == 0.002
    assert EMA(layer, 0.002, num_steps=1000).momentum == 0.01
    assert EMA(layer, 0.002, num_steps=2).momentum == 0.5


@pytest.mark.parametrize("interval, shown", [(1, "4.0000"), (3, "3.0000")])
def test_progress_shows_the_loss_and_all_epochs(interval, shown, capsys):
    engine = Engine(lambda engine, batch: [{"loss": torch.tensor(float(engine.state.iteration))}])
    TrainingProgressBar("toy", interval).attach(engine)
    engine.run([0, 0], max_epochs=2)
    last = capsys.readouterr().err.rstrip().rsplit("\r", 1)[-1]
    assert "toy" in last and "4/4" in last and f"loss={shown}" in last
