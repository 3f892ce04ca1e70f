"""`resynth VERB`: finds the verb's module, parses its arguments, turns mistakes into one sentence."""

import argparse
import importlib
import sys
from collections.abc import Sequence

# verb -> one line of help; the module is fairseq_resynth.cli.<verb with underscores>, with
# add_arguments(parser) and run(args) -> exit status. Listed here so that --help imports nothing.
VERBS = {
    "preprocess": "convert any audio to 16 kHz mono files",
    "manifest": "split prepared audio into train, valid and test, with speaker names",
    "kmeans": "fit the k-means whose clusters are the content units",
    "quantize": "write the content units of every utterance",
    "units-quality": "measure units against a phone alignment: PNMI, purities, codebook use",
    "parse-codes": "turn units that were made elsewhere into a data directory",
    "f0": "extract F0 of whole utterances, and each speaker's mean and deviation",
    "quantize-f0": "write the F0 codes of a trained F0 VQ-VAE",
    "speakers": "write a speaker vector for every utterance, and speakers' means",
    "pack": "put a data directory into memory-mapped files, for training at scale",
    "merge": "join the parts that --shard left",
    "synthesize": "speak a test set or a file of units, in its own or other voices",
    "resynthesize": "resynthesise recordings in one command",
    "bpe": "shorten units for a language model, without loss",
    "convert": "say recordings in another voice, melody or rhythm",
    "play": "a local web page: record, change voice, pitch and rhythm, listen",
    "import": "take over a checkpoint of speech-resynthesis or a code HiFi-GAN",
    "export": "publish a trained system as one folder",
    "encode": "compress speech to about 150 bits a second",
    "decode": "speech from compressed files, in any voice of the model",
    "inspect": "where the bits of a compressed file go",
    "fit-codec": "fit the codec's context model on streams or unit files",
    "codec-bench": "count the bits a second of streams, in whole bytes of decoded files",
    "user-dir": "print the folder to give to fairseq's --user-dir",
    "evaluate": "measure generated speech against references; a report to look at and listen to",
    "disentanglement": "measure whether voice, melody, pitch and rhythm change one at a time",
    "report": "join several evaluations into one comparison",
    "listening-test": "a page for a human listening test, and what its results mean",
}


def _module(verb: str):
    return importlib.import_module("fairseq_resynth.cli." + verb.replace("-", "_"))


def _usage() -> str:
    width = max(map(len, VERBS))
    rows = "\n".join(f"  {verb:<{width}}  {line}" for verb, line in VERBS.items())
    return (
        f"usage: resynth VERB [options]   (resynth VERB --help shows a verb's options)\n\n{rows}\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Returns:
        The exit status: 0 success, 1 finished with files named as failed, 2 a user's mistake, 130
        interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage(), end="")
        return 0 if arguments else 2
    verb = arguments[0]
    if verb not in VERBS:
        print(f"resynth: error: unknown verb {verb!r}\n{_usage()}", end="", file=sys.stderr)
        return 2
    module = _module(verb)
    parser = argparse.ArgumentParser(
        prog=f"resynth {verb}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    parsed = parser.parse_args(arguments[1:])
    try:
        return module.run(parsed) or 0
    except (ValueError, OSError) as error:
        print(f"resynth {verb}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nresynth {verb}: interrupted; the same command continues", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
