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

"""Refuses a run in several processes, each of which would write the same files."""

from __future__ import annotations

import os

from scripts.errors import InputError


def check_single_process() -> None:
    """
    Check that this run is not one of several processes that ``torchrun`` started.

    Raises:
        InputError: it is; several GPUs are not supported yet.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise InputError(
            f"torchrun started {processes} processes, and several GPUs are not supported yet: "
            "run it with python -m monai.bundle run, and choose a GPU with --device"
        )
