# SPDX-License-Identifier: Apache-2.0
"""Puts the bundle on the path, as MONAI does for a run, and keeps the tests from fighting over cores."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # also for the commands that tests start

import torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))
torch.set_num_threads(1)  # two busy test processes on two cores would wait for each other
