"""TFDS builders for data sets that stock TFDS cannot prepare without TensorFlow."""
