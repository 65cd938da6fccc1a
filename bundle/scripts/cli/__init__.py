# SPDX-License-Identifier: Apache-2.0
"""What stands around a run: options, errors, help, the page of a check, the stages of d2r.yaml."""
