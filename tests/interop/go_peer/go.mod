// SPDX-License-Identifier: Apache-2.0
module troth.example/peer

go 1.22
