# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""The mean-reverting SDE of stage I in closed form (paper Eq. 1-3; Luo et al. 2023, arXiv 2301.11699).

``x`` are images (B, 1, H, W) scaled to [0, 1], ``mu`` their aligned cubic upsample, ``t`` timesteps 1..T of shape (B,).
The paper's lambda is ``theta`` here. A sharp image ``x0`` drifts towards ``mu`` while noise of standard deviation
``delta`` builds up.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch


class Bridge(NamedTuple):
    """Coefficients of x_s given x_t and x0: mu + from_state (x_t - mu) + from_clean (x0 - mu) + std * noise."""

    from_state: torch.Tensor
    from_clean: torch.Tensor
    std: torch.Tensor


class MeanRevertingSDE:
    """Schedule and closed forms of dx = theta_t (mu - x) dt + delta sqrt(2 theta_t) dw.

    Args:
        delta: standard deviation of the stationary noise, in units of the image range [0, 1].
        timesteps: their number T.
        epsilon: exp(-Theta_T), what is left of x0 - mu at the last timestep.
    """

    def __init__(self, delta: float = 50 / 255, timesteps: int = 100, epsilon: float = 0.005) -> None:
        self.delta = delta
        self.timesteps = timesteps
        grid = torch.arange(timesteps + 3, dtype=torch.float64) / (timesteps + 2)
        cosine = torch.cos((grid + 0.008) / 1.008 * math.pi / 2) ** 2
        theta = 1 - (cosine / cosine[0])[1 : timesteps + 2]
        theta[0] = 0  # timestep 0 is the clean image: no time passes before it
        self.dt = -math.log(epsilon) / float(theta.sum())
        self.theta = theta
        self.cumulative = torch.cumsum(theta, 0) * self.dt
        self._copies: dict[tuple[torch.device, int], torch.Tensor] = {}

    def _at(self, values: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Values at timesteps ``t`` (B,), as (B, 1, 1, 1) in double precision."""
        # Copied to a device once: a copy would end the recording of a CUDA graph.
        key = t.device, id(values)
        if key not in self._copies:
            self._copies[key] = values.to(t.device)
        return self._copies[key][t.long()].view(-1, 1, 1, 1)

    def _total(self, t: torch.Tensor) -> torch.Tensor:
        return self._at(self.cumulative, t)

    def decay(self, t: torch.Tensor) -> torch.Tensor:
        """exp(-Theta_t), the share of x0 - mu that is left, (B, 1, 1, 1)."""
        return torch.exp(-self._total(t)).float()

    def std(self, t: torch.Tensor) -> torch.Tensor:
        """Standard deviation sqrt(v_t) of x_t given x0, (B, 1, 1, 1)."""
        return (self.delta * torch.sqrt(1 - torch.exp(-2 * self._total(t)))).float()

    def state(self, x0: torch.Tensor, mu: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """x_t given x0: mu + (x0 - mu) exp(-Theta_t) + sqrt(v_t) noise."""
        return mu + (x0 - mu) * self.decay(t) + self.std(t) * noise

    def clean(self, x: torch.Tensor, mu: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """x0 that belongs to x_t and the (predicted) noise; the inverse of :meth:`state`."""
        return mu + (x - mu - self.std(t) * noise) / self.decay(t)

    def bridge(self, t: torch.Tensor, s: torch.Tensor) -> Bridge:
        """Distribution of x_s given x_t and x0, exact for any timesteps s < t (s = 0 is x0 itself)."""
        a = torch.exp(-(self._total(t) - self._total(s)))
        b = torch.exp(-self._total(t))
        c = torch.exp(-self._total(s))
        from_state = a * (1 - c**2) / (1 - b**2)
        from_clean = c * (1 - a**2) / (1 - b**2)
        std = self.delta * torch.sqrt((1 - a**2) * (1 - c**2) / (1 - b**2))
        return Bridge(from_state.float(), from_clean.float(), std.float())

    def reverse_drift(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Coefficients (of x_t - mu, of the noise) of the mean of one reverse Euler step (Eq. 2).

        The step's mean is x_t + state (x_t - mu) - noise_gain * noise, with the score replaced by -noise / sqrt(v_t).
        """
        theta = (self._at(self.theta, t) * self.dt).float()
        return theta, 2 * self.delta**2 * theta / self.std(t)

    def reverse_std(self, t: torch.Tensor) -> torch.Tensor:
        """Standard deviation of the noise added by one reverse Euler step, (B, 1, 1, 1)."""
        return (self.delta * torch.sqrt(2 * self._at(self.theta, t) * self.dt)).float()
