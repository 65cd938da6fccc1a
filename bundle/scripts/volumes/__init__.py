# SPDX-License-Identifier: Apache-2.0
"""Volumes: header and voxel size, identity, reading, and writing that is safe."""
