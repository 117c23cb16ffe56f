# SPDX-License-Identifier: Apache-2.0
"""TPM 2.0 structures and the logs that explain a TPM's registers.

Source: TCG "Trusted Platform Module Library Specification", family 2.0, revision 1.59 (Part 1:
Architecture, Part 2: Structures); TCG "PC Client Platform Firmware Profile Specification",
revision 1.06 (the event log); the Linux kernel's Documentation/security/IMA-templates.rst.
"""
