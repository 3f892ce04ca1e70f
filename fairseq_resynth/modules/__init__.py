"""Networks, losses and their sizes in plain torch."""
