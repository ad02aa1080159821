"""`python -m vc2.lora unet_lora.pt turbo.safetensors`: convert a LoRA, or merge it into a checkpoint."""

import sys

from .files.lora import main

if __name__ == "__main__":
    sys.exit(main())
