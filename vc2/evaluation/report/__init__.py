"""`python -m vc2.evaluation report`: sets of clips and their rows as a page to read, and as one to look at."""
