# SPDX-License-Identifier: Apache-2.0
"""The formats of files, one module each."""
