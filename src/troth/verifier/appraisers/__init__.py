# SPDX-License-Identifier: Apache-2.0
"""Claims against Reference Values: one module for each scheme, found by the scheme's one word.

Each module has `appraise(verified, references) -> Sequence[Appraisal]`.
"""
