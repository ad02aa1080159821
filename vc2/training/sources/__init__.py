"""Where clips, images and captions come from: a file for each kind of source."""
