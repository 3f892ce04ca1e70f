"""The `.rsyn` bitstream and its entropy coder."""
