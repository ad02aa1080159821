"""Proofs that take minutes; each writes its result to docs/ with the command that made it."""
