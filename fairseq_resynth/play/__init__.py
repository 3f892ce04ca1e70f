"""A local web page that changes voice, pitch and rhythm of recordings."""
