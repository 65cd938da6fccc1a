# SPDX-License-Identifier: Apache-2.0
"""The paper's tables, trained and scored again."""
