# SPDX-License-Identifier: Apache-2.0
"""What the networks of stages I and III are given for a batch of the data."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from scripts.diffusion.sde import MeanRevertingSDE
from scripts.training.prepare_batch import NoisePrepareBatch, RestorationPrepareBatch, SequencePrepareBatch
from scripts.transforms.rand_sequences import RandSequencesd


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
    item = RandSequencesd("image", (8, 8), (2, 3), num_targets=2)({"image": torch.rand(1, 12, 12, 12)})[0]
    batch = {name: value[None] for name, value in item.items()}
    window, label, (relative_depth, factor), _ = SequencePrepareBatch()(batch, "cpu")
    assert (window.shape, label.shape, relative_depth.shape, factor.shape) == (
        (1, 1, 8, 8, 4),
        (1, 2, 8, 8),
        (1, 2),
        (1,),
    )
