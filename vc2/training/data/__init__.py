"""From samples to batches: what each step reads, in which order, and what was prepared of it."""
