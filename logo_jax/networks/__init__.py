"""Networks as Flax linen modules.

In training, a network's input has the view on its first axis and the batch on its
second axis, [v, b, ...]; in evaluation it may have any leading axes. Images and feature
maps have channels last (NHWC). `folded_views` gives modules without a view axis one.
"""
