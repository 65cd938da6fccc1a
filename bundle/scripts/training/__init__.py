# SPDX-License-Identifier: Apache-2.0
"""What MONAI's trainer needs to train stages I and III."""
