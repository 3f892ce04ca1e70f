"""Plain torch modules: no fairseq in here, a test sees to it."""
