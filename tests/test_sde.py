# SPDX-License-Identifier: Apache-2.0
"""The mean-reverting SDE: its constants, and that its closed forms belong together."""

from __future__ import annotations

import math

import pytest
import torch
from scripts.diffusion.sde import MeanRevertingSDE

DELTA = 50 / 255


@pytest.fixture(scope="module")
def sde() -> MeanRevertingSDE:
    return MeanRevertingSDE()


def timesteps(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def test_constants(sde):
    """The published schedule (the paper's code), see the class."""
    assert len(sde.theta) == 101
    assert float(sde.theta[1]) == pytest.approx(0.00169, abs=5e-6)
    assert float(sde.theta[100]) == pytest.approx(0.99977, abs=5e-6)
    assert float(sde.theta.sum()) == pytest.approx(50.899, abs=5e-4)
    assert sde.dt == pytest.approx(0.104094, abs=5e-7)
    decay = sde.decay(timesteps(10, 30, 50, 70, 100)).flatten().tolist()
    assert decay == pytest.approx([0.9854, 0.7713, 0.3608, 0.0911, 0.0050], abs=5e-5)
    assert sde.decay(timesteps(100)).item() == pytest.approx(0.005, rel=1e-5)


def test_state_zero_is_the_clean_image(sde):
    x0, mu = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    assert torch.equal(sde.state(x0, mu, timesteps(0, 0), torch.randn(2, 1, 4, 4)), x0.sub(mu).add(mu))


def test_variance_of_the_marginal(sde):
    for t in (1, 40, 100):
        decay = sde.decay(timesteps(t)).item()
        assert sde.std(timesteps(t)).item() == pytest.approx(DELTA * math.sqrt(1 - decay**2), rel=1e-3)
    assert MeanRevertingSDE(delta=0.1).std(timesteps(100)).item() == pytest.approx(0.1, rel=1e-4)


def test_settings_change_the_schedule():
    sde = MeanRevertingSDE(delta=0.3, timesteps=10, epsilon=0.01)
    assert len(sde.theta) == 11
    assert sde.decay(timesteps(10)).item() == pytest.approx(0.01, rel=1e-5)


@pytest.mark.parametrize("t, s", [(100, 99), (100, 60), (60, 1), (2, 1), (37, 0), (100, 0)])
def test_bridge_reproduces_the_marginal(sde, t, s):
    """x_s drawn from the bridge, averaged over x_t | x0, must have the marginal's mean and variance for any s < t."""
    bridge = sde.bridge(timesteps(t), timesteps(s))
    from_state, from_clean, std = (value.item() for value in bridge)
    decay_t, decay_s = sde.decay(timesteps(t)).item(), sde.decay(timesteps(s)).item()
    assert from_state * decay_t + from_clean == pytest.approx(decay_s, abs=1e-5)
    variance = (from_state * sde.std(timesteps(t)).item()) ** 2 + std**2
    assert variance == pytest.approx(sde.std(timesteps(s)).item() ** 2, abs=1e-7)


def test_bridge_reproduces_the_marginal_by_sampling(sde):
    generator = torch.Generator().manual_seed(0)
    n, x0, mu = 100_000, 0.9, 0.3
    clean, mean = torch.full((1, 1, n, 1), x0), torch.full((1, 1, n, 1), mu)
    for t, s in ((100, 70), (70, 30), (55, 54)):
        x = sde.state(clean, mean, timesteps(t), torch.randn(clean.shape, generator=generator))
        bridge = sde.bridge(timesteps(t), timesteps(s))
        x = mean + bridge.from_state * (x - mean) + bridge.from_clean * (clean - mean)
        x = x + bridge.std * torch.randn(clean.shape, generator=generator)
        std = sde.std(timesteps(s)).item()
        assert x.mean().item() == pytest.approx(mu + (x0 - mu) * sde.decay(timesteps(s)).item(), abs=5 * std / n**0.5)
        assert x.std().item() == pytest.approx(std, rel=5 / (2 * n) ** 0.5)


def test_bridges_compose(sde):
    """Going from t to s to u is going from t to u: in the mean, given x_t and x0."""
    direct = sde.bridge(timesteps(90), timesteps(20))
    first, second = sde.bridge(timesteps(90), timesteps(50)), sde.bridge(timesteps(50), timesteps(20))
    assert (second.from_state * first.from_state).item() == pytest.approx(direct.from_state.item(), rel=1e-4)
    assert (second.from_state * first.from_clean + second.from_clean).item() == pytest.approx(
        direct.from_clean.item(), rel=1e-4
    )
    variance = (second.from_state * first.std) ** 2 + second.std**2
    assert variance.item() == pytest.approx(direct.std.item() ** 2, rel=1e-4)


def test_clean_inverts_state(sde):
    generator = torch.Generator().manual_seed(1)
    x0, mu, noise = torch.rand(3, 4, 1, 8, 8, generator=generator)
    t = timesteps(1, 30, 70, 100)
    found = sde.clean(sde.state(x0, mu, t, noise), mu, t, noise)
    assert torch.allclose(found, x0, atol=2e-5)


def test_timesteps_of_a_batch_are_their_own(sde):
    x0, mu, noise = torch.rand(3, 2, 1, 4, 4)
    together = sde.state(x0, mu, timesteps(5, 95), noise)
    for i, t in enumerate((5, 95)):
        assert torch.equal(together[i], sde.state(x0[i : i + 1], mu[i : i + 1], timesteps(t), noise[i : i + 1])[0])


@pytest.mark.parametrize("t", [1, 13, 50, 100])
def test_reverse_step_is_the_reverse_sde(sde, t):
    """One Euler step of dx = [theta (mu - x) - 2 delta^2 theta score] dt, backwards, with score = -noise / sqrt(v)."""
    x0, mu, noise = torch.rand(3, 1, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    x = sde.state(x0, mu, timesteps(t), noise)
    of_state, of_noise = sde.reverse_drift(timesteps(t))
    step = x + of_state * (x - mu) - of_noise * noise

    theta, variance = float(sde.theta[t]), float(sde.std(timesteps(t))) ** 2
    score = -(x - mu - (x0 - mu) * sde.decay(timesteps(t))) / variance
    expected = x - (theta * (mu - x) - 2 * DELTA**2 * theta * score) * sde.dt
    assert torch.allclose(step, expected, atol=2e-5)
    assert sde.reverse_std(timesteps(t)).item() == pytest.approx(DELTA * math.sqrt(2 * theta * sde.dt), rel=1e-5)
