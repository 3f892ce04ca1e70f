"""Waveform generators: HiFi-GAN, Vocos, source-filter; and how they run fastest at inference."""
