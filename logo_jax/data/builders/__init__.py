"""TFDS builders of ours: data sets that stock TFDS cannot write without TensorFlow."""
