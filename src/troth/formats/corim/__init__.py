# SPDX-License-Identifier: Apache-2.0
"""CoRIM and CoMID: bytes to frozen values and back.

`Corim.decode` and `SignedCorim.decode` are the entrances. What the values mean for appraisal is
`troth.endorsement`.

Source: draft-ietf-rats-corim, editors' copy 0b855af of 2026-08-19 (-11 and later changes).
"""

from troth.formats.corim.comid import REPLACES, SUPPLEMENTS, Comid, LinkedTag
from troth.formats.corim.common import CorimEntity, Validity
from troth.formats.corim.corim import MEDIA_TYPE, Corim, Locator, OpaqueTag
from troth.formats.corim.environment import EnvironmentClass, EnvironmentMap
from troth.formats.corim.identifier import Digest
from troth.formats.corim.measurement import (
    IntRange,
    Measurement,
    MeasurementValues,
    RawValue,
    Svn,
    Version,
)
from troth.formats.corim.signed import (
    SIGNED_MEDIA_TYPE,
    SignedCorim,
    VerifiedCorim,
    decode_any,
    sign_corim,
)
from troth.formats.corim.triples import (
    ConditionalEndorsement,
    ConditionalSeries,
    CoswidTriple,
    DomainTriple,
    KeyTriple,
    MeasurementTriple,
    SeriesRecord,
    Triples,
)

__all__ = [
    "MEDIA_TYPE",
    "REPLACES",
    "SIGNED_MEDIA_TYPE",
    "SUPPLEMENTS",
    "Comid",
    "ConditionalEndorsement",
    "ConditionalSeries",
    "Corim",
    "CorimEntity",
    "CoswidTriple",
    "Digest",
    "DomainTriple",
    "EnvironmentClass",
    "EnvironmentMap",
    "IntRange",
    "KeyTriple",
    "LinkedTag",
    "Locator",
    "Measurement",
    "MeasurementTriple",
    "MeasurementValues",
    "OpaqueTag",
    "RawValue",
    "SeriesRecord",
    "SignedCorim",
    "Svn",
    "Triples",
    "Validity",
    "VerifiedCorim",
    "Version",
    "decode_any",
    "sign_corim",
]
