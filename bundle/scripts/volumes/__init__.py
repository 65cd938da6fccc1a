# SPDX-License-Identifier: Apache-2.0
"""What a volume is, and how it comes and goes."""
