"""VideoCrafter2: the model, its sampler, its training and its evaluation. Nothing in this package knows that ComfyUI
exists.
"""
