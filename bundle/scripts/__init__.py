# SPDX-License-Identifier: Apache-2.0
"""What the D2R bundle needs beyond MONAI, Ignite and scikit-image."""
