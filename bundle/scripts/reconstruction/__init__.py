# SPDX-License-Identifier: Apache-2.0
"""Use: a stage III network slides along Z and inserts slices."""
