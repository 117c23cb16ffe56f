# SPDX-License-Identifier: Apache-2.0
"""What an Attester says: one folder per scheme, and the ports."""
