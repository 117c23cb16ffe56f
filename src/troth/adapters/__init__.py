# SPDX-License-Identifier: Apache-2.0
"""Things that we call: databases, devices, remote Verifiers."""
