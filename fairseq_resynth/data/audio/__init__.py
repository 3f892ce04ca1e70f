"""Audio files, members of ZIP archives, and audio that somebody uploads."""
