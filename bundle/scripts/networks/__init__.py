# SPDX-License-Identifier: Apache-2.0
"""The networks: the 2-D diffusion prior (stage I) and the axial super-resolution network (stage III)."""
