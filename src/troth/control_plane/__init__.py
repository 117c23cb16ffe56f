# SPDX-License-Identifier: Apache-2.0
"""Services that others call: REST, SDS, LDS, CDS, the feed."""
