# SPDX-License-Identifier: Apache-2.0
"""What Intel SGX and TDX have in common: quotes, the certificates of platforms, collateral, TCB.

Not a scheme: `troth.evidence.sgx` and `troth.evidence.tdx` are. Quotes are decoded here without
believing anything; dcap-qvl (the extra "tdx") verifies them.
"""
