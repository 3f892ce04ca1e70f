"""The figures of Polyak et al. (2021), Tables 1 and 2, to stand beside one's own."""

COLUMNS = ("wer", "vde", "ffe", "eer", "mos")
NOTE = (
    "The paper's own figures, in per cent, on its data and with its recogniser and speaker encoder: "
    "they say where the published system stood, not what this evaluation would give it. In its "
    "Table 2, VDE and FFE are of speech with the pitch flattened; higher is better there."
)
# (row, WER, VDE, FFE, EER, MOS); None: not in the table
RESYNTHESIS = (
    ("LJSpeech, recordings", 5.60, None, None, None, 4.33),
    ("LJSpeech, CPC", 8.51, 13.48, 15.19, None, 3.31),
    ("LJSpeech, HuBERT", 6.96, 13.09, 15.00, None, 3.66),
    ("LJSpeech, VQ-VAE", 8.85, 7.19, 8.54, None, 3.66),
    ("VCTK, recordings", 4.32, None, None, 3.25, 4.08),
    ("VCTK, CPC", 14.49, 10.56, 11.13, 4.25, 3.33),
    ("VCTK, HuBERT", 11.44, 9.77, 10.43, 5.79, 3.41),
    ("VCTK, VQ-VAE", 19.80, 5.20, 5.59, 4.28, 3.39),
)
CONVERSION = (
    ("VCTK, recordings", 4.32, None, None, 3.25, 4.11),
    ("VCTK to LJSpeech, CPC", 16.11, 46.68, 48.71, 0.46, 3.57),
    ("VCTK to LJSpeech, HuBERT", 12.23, 39.20, 48.42, 0.31, 3.71),
    ("VCTK to LJSpeech, VQ-VAE", 36.96, 10.54, 12.08, 9.65, 2.90),
    ("VCTK, CPC", 15.98, 25.29, 26.97, 4.83, 3.42),
    ("VCTK, HuBERT", 12.72, 23.46, 26.67, 6.01, 3.58),
    ("VCTK, VQ-VAE", 29.44, 7.03, 7.80, 11.56, 3.08),
)
