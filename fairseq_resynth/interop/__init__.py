"""Readers and writers of other projects' files: GSLM, speech-resynthesis, code HiFi-GAN."""
