# SPDX-License-Identifier: Apache-2.0
"""What Troth tells a stock Envoy: its bootstrap, its xDS resources, and the server of both."""
