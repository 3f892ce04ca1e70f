"""The `.rsyn` format: bitstream, payload, range coder, archive. docs/codec_format.md specifies it."""
