# SPDX-License-Identifier: Apache-2.0
"""MONAI transforms, one per module, in array and dictionary form."""
