"""Where images come from: decoded images as arrays, whatever stores them."""
