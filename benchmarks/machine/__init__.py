# SPDX-License-Identifier: Apache-2.0
"""How fast each stage is on a machine, and how much memory a reconstruction takes."""
