"""fairseq's datasets: random crops of aligned streams and waveforms."""
