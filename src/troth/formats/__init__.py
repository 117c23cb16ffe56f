# SPDX-License-Identifier: Apache-2.0
"""Bytes to frozen values and back: CBOR, COSE, JOSE, EAT, CMW, EAR, AR4SI, CoRIM."""
