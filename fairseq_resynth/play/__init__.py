"""A local web page for a bundle: record or upload speech, change voice, pitch and rhythm, look and listen."""
