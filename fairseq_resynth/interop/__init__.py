"""Other projects' files: import, export, and graphs for other runtimes."""
