"""Speech as a few hundred bits per second: files, streams and archives."""
