"""Copies of the ledger for other tools to open. Each can be deleted and rebuilt."""
