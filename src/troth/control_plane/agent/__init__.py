# SPDX-License-Identifier: Apache-2.0
"""The agent of one node: it joins, keeps its SVID fresh, and decides which peers its Envoy knows."""
