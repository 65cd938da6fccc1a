# SPDX-License-Identifier: Apache-2.0
"""Scores, tables and pictures."""
