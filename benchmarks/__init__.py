# SPDX-License-Identifier: Apache-2.0
"""Speed and memory of the bundle on a machine, and the paper's tables; run from the folder of the repository."""

import sys
from pathlib import Path

# Own code of the bundle is imported as scripts.<module>, in every module below as in the configs.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))
