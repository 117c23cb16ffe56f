# SPDX-License-Identifier: Apache-2.0
"""The server of a trust domain: it lets nodes join, issues SVIDs, and tells peers what changed."""
