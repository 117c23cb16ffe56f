# SPDX-License-Identifier: Apache-2.0
"""Public fakes and simulators for tests; production never imports them."""
