"""Files that mean harm, or are merely odd, made from a seed; `python -m tests.fuzz --count 5000` tries many."""
