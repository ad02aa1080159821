"""What is learned: the denoiser, the autoencoder and the text encoder, and their configurations."""
