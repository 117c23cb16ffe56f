# SPDX-License-Identifier: Apache-2.0
"""The attestation exchange of one connection, without sockets, clocks or cryptography of TLS."""
