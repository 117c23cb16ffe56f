# SPDX-License-Identifier: Apache-2.0
"""The registry on a SQL database: SQLite by default, PostgreSQL by URL with the same statements."""
