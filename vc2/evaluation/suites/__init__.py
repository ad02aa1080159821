"""Suites: the prompts that models are compared on, and readers for users' own copies of others'."""
