# SPDX-License-Identifier: Apache-2.0
"""The main job with real parts on one machine."""
