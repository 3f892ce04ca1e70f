"""Fit the k-means whose clusters are the content units, on a bounded random sample of frames.

resynth kmeans DATA --feature-type logmel --num-clusters 100 --out km.safetensors
resynth kmeans DATA --feature-type hubert --content-checkpoint hubert_base_ls960.pt --layer 6 \\
    --num-clusters 100 --out km.safetensors
resynth kmeans --centroids km.npy --feature-type hubert --content-checkpoint … --layer 6 --out km.safetensors
"""

import argparse

from fairseq_resynth.cli import common


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("data DATA", "folder of `resynth manifest`; not with --centroids", nargs="?")
    add.encoder(required=True)
    add("--num-clusters K", "number of clusters", 100)
    add("--out FILE", "the k-means file, .safetensors", required=True)
    add("--split", "split to fit on", "train")
    add("--seed", "seed of the sample and of k-means", 1369)
    add("--sample-percent P", "percentage of the files to read", 100, type=float)
    add("--max-frames N", "number of frames to fit on, drawn at random and held in memory", 200_000)
    add("--centroids NPY", "use these centroids of shape (K, D) instead of fitting")
    add.shared("--json")


def run(args: argparse.Namespace) -> int:
    """Fits, writes the file, prints what it was fitted on; 1 if a file failed."""
    if (args.data is None) == (args.centroids is None):
        raise ValueError("give DATA, the folder of `resynth manifest`, or --centroids, not both")
    from fairseq_resynth.encoders.content import KMeans, build_encoder, read_centroids

    device = common.prepare_device(args)
    encoder = build_encoder(args.feature_type, args.content_checkpoint, args.layer, device)
    if args.centroids is not None:
        kmeans = KMeans(read_centroids(args.centroids), encoder.description())
        kmeans.save(args.out)
        summary = {"out": args.out, "num_clusters": kmeans.num_units, "centroids": args.centroids}
        line = f"{args.out}: {kmeans.num_units} centroids of {args.centroids}"
        return common.report(args, summary, [line])
    return _fit(args, encoder, common.encoder_reading(args, device))


def _fit(args: argparse.Namespace, encoder, reading) -> int:
    from fairseq_resynth.data.manifest import read_splits
    from fairseq_resynth.encoders.content import KMeans
    from fairseq_resynth.preparation.kmeans import fit_centroids, sample_frames

    manifest = read_splits(args.data, [args.split])[args.split]
    sample = sample_frames(
        manifest, encoder, args.max_frames, args.sample_percent, args.seed, reading
    )
    centroids, distance = fit_centroids(sample.frames, args.num_clusters, args.seed, encoder.device)
    KMeans(centroids, encoder.description()).save(args.out)
    summary = {
        "out": args.out,
        "num_clusters": len(centroids),
        "files": sample.files,
        "frames": sample.seen,
        "frames_used": len(sample.frames),
        "mean_squared_distance": distance,
        "failed": sample.failed,
    }
    lines = [
        f"{args.out}: {len(centroids)} clusters from {len(sample.frames)} of {sample.seen} frames "
        f"({sample.files} files), mean squared distance {distance:.4g}"
    ]
    lines += common.failure_lines(sample.failed, "failed and were left out")
    return common.report(args, summary, lines, sample.failed)
