"""fairseq criterions: `hifigan`, `f0_vqvae`."""
