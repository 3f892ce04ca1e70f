"""Files on disk and the datasets that read them: manifests, audio, F0, units, speakers."""
