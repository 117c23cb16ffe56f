# SPDX-License-Identifier: Apache-2.0
"""The SPIFFE Workload API, SDS and Broker API: identities for the processes of this machine."""
