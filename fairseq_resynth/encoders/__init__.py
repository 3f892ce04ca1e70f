"""Content and speaker encoders: from a waveform to features, content units or a speaker vector."""
