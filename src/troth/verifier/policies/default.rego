# SPDX-License-Identifier: Apache-2.0

# The Appraisal Policy that applies where the operator configured none.
#
# It adds nothing to what the appraiser found: the status is the one that follows from the
# trustworthiness vector. The appraiser compared every claim with the Reference Values and the
# scheme's specification before this runs, and what it found is in `input.findings`.
#
# Start your own policy from a copy. The input and the rules that a policy may define are in
# docs/reference/policy.md.
package troth.appraisal

import rego.v1

# Undefined means contraindicated; saying so here makes it visible.
default status := "contraindicated"

# `every` is undefined where `input.findings` is absent, so a broken input cannot pass.
status := input.status if {
	every finding in input.findings {
		finding.severity != "contraindicated"
	}
}
