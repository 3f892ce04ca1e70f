"""F0: its extraction, its representations for a generator, and the statistics of speakers."""
