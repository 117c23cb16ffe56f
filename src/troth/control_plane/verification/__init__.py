# SPDX-License-Identifier: Apache-2.0
"""The Verifier's standard APIs: challenge-response, provisioning, distribution of Endorsements."""
