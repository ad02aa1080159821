"""What can be measured of a clip, or of a set of clips: a metric a file, listed in `registry`.

Nothing here downloads. A metric whose library or file is missing says so, and is skipped; it never makes up a number.
"""
