# SPDX-License-Identifier: Apache-2.0
"""`python -m troth` is the `troth` command."""

from troth.cli.main import run

if __name__ == "__main__":
    run()
