"""What the user's command line asks of the pack.

Uses `comfy.cli_args.args`; a flag that goes counts as not set.
"""

from comfy.cli_args import args


def wants_float32_unet() -> bool:
    return args.fp32_unet or args.force_fp32


def wants_metadata() -> bool:
    """Whether saved files may hold the graph that made them."""
    return not args.disable_metadata
