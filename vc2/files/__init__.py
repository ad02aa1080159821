"""What is read and written: checkpoints, LoRA files, videos."""
