"""fairseq models: `unit_hifigan`, `f0_vqvae`."""
