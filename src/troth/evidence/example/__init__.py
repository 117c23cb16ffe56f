# SPDX-License-Identifier: Apache-2.0
"""A made-up scheme: the template for adding one (docs/howto/add-a-scheme.md).

It is in no registry. Copy the folder, then replace each numbered step by what your platform does.
"""

from __future__ import annotations

from troth.evidence.evidence import Scheme
from troth.evidence.example.attester import ExampleAttester
from troth.evidence.example.evidence import ExampleClaims, ExampleEvidence
from troth.evidence.example.scheme import ExampleScheme

__all__ = ["SCHEME", "ExampleAttester", "ExampleClaims", "ExampleEvidence", "ExampleScheme"]

SCHEME: Scheme[ExampleEvidence] = ExampleScheme()
