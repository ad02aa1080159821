"""`python -m vc2.evaluation rate`: people say which of two clips is better, and do not know whose they are."""
