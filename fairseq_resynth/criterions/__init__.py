"""fairseq criterions: the losses of the vocoder, with its discriminators, and of the F0 VQ-VAE."""
