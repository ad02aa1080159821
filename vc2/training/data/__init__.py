"""Where clips, images and captions come from."""
