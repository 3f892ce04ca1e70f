"""A local web page over a bundle: record or upload, change voice, pitch and rhythm, look and listen."""
