# SPDX-License-Identifier: Apache-2.0
"""Claims against Reference Values: one module for each scheme, found by the scheme's one word.

Each module has `appraise(verified, references) -> Sequence[Appraisal]`. It is imported when its
scheme is first appraised. A new scheme is one line in APPRAISERS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType

from troth.verifier.appraisers.appraisal import Appraiser

__all__ = ["APPRAISERS", "AppraiserLoader"]

AppraiserLoader = Callable[[], Appraiser]
"""Imports and returns an appraiser."""


def _module(path: str) -> AppraiserLoader:
    def load() -> Appraiser:
        appraiser: Appraiser = import_module(path).appraise
        return appraiser

    return load


APPRAISERS: Mapping[str, AppraiserLoader] = MappingProxyType(
    {
        "cca": _module("troth.verifier.appraisers.cca"),
        "nitro": _module("troth.verifier.appraisers.nitro"),
        "psa": _module("troth.verifier.appraisers.psa"),
        "sev_snp": _module("troth.verifier.appraisers.sev_snp"),
        "sgx": _module("troth.verifier.appraisers.sgx"),
        "tdx": _module("troth.verifier.appraisers.tdx"),
        "tpm2": _module("troth.verifier.appraisers.tpm2"),
    }
)
"""Scheme name to loader."""
