# SPDX-License-Identifier: Apache-2.0
"""Stages I and II: the diffusion prior, and what it restores."""
