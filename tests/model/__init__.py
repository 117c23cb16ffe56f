# SPDX-License-Identifier: Apache-2.0
"""An exhaustive model checker for the invariants I1 to I5, over the tables that run."""
