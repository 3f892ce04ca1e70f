"""Vector quantization, and the VQ-VAEs of F0 and of content units."""
