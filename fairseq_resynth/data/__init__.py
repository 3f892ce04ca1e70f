"""Reading: audio, manifests, units, F0, speakers, and the datasets of training."""
