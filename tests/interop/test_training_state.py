"""do_*: the discriminators and both optimizers go on inside fairseq-train."""

import json

import pytest
import torch
from published_checkpoints import golden, make
from small_corpus import PLUGIN, run

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.interop.weight_names import discriminator_name, generator_name, parameter_names
from fairseq_resynth.modules.discriminators.families import HIFIGAN, build_discriminators

STREAMS = StreamSpec(320, 10, speakers=("anna", "boris"))
CONFIG = {"multispkr": "_", "num_speakers": 3, "model_in_dim": 16}
STEPS, EPOCH = 700, 5


def _old_discriminators(width):
    """State dicts of mpd and msd as the original saves them: bias first, then the norm's two parts."""
    state = {"mpd": {}, "msd": {}}
    module = build_discriminators(HIFIGAN, width)
    for name, value in module.state_dict().items():
        group = "mpd" if name.startswith("periods.") else "msd"
        name = name.replace("periods.", "discriminators.").replace("scales.", "discriminators.")
        for ours, old in (
            ("parametrizations.weight.original0", "weight_g"),
            ("parametrizations.weight.original1", "weight_v"),
            ("parametrizations.weight.original", "weight_orig"),
            ("parametrizations.weight.0._u", "weight_u"),
            ("parametrizations.weight.0._v", "weight_v"),
        ):
            name = name.replace(ours, old) if name.endswith(ours) else name
        state[group][name] = value.clone()
    return state


def _stepped(modules):
    """AdamW's state after two steps over the parameters of state dicts; and its moments by name."""
    names = [(group, name) for group in modules for name in parameter_names(modules[group])]
    parameters = [torch.nn.Parameter(modules[group][name].clone()) for group, name in names]
    optimizer = torch.optim.AdamW(parameters, 2e-4, betas=(0.8, 0.99))
    torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.999)
    for _ in range(2):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    state = optimizer.state_dict()
    return state, {name: state["state"][i]["exp_avg"] for i, name in enumerate(names)}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """(folder with g_*, do_*, config and names; expected first moments by our names)."""
    folder, _ = make(tmp_path_factory.mktemp("fb") / "in", _with_spare_row(), CONFIG)
    (folder / "speakers.txt").write_text("anna\nboris\n")
    weights = torch.load(folder / "g_00000100")["generator"]
    state = _old_discriminators(1 / 16)
    optim_g, moments_g = _stepped({"": weights})
    optim_d, moments_d = _stepped({"msd": state["msd"], "mpd": state["mpd"]})
    state |= {"optim_g": optim_g, "optim_d": optim_d, "steps": STEPS, "epoch": EPOCH}
    torch.save(state, folder / "do_00000100")
    moments = {f"unit_generator.{generator_name(n, 1)}": m for (_, n), m in moments_g.items()}
    for (group, name), moment in moments_d.items():
        moments["discriminators." + discriminator_name(group, name, state[group])] = moment
    moments["unit_generator.speaker_embedding.weight"] = moments[
        "unit_generator.speaker_embedding.weight"
    ][:2]
    return folder, moments


def _with_spare_row():
    return StreamSpec(320, 10, speakers=("anna", "boris", "nobody"))


def do_import(folder, out, *options):
    arguments = ["--from", "speech-resynthesis", folder, "--outdir", out, *options, "--json"]
    return main(["import", *map(str, arguments)])


def test_training_goes_on(original, tiny_data, tmp_path, capsys):
    folder, moments = original
    checkpoint = tmp_path / "imported.pt"
    assert do_import(folder, tmp_path / "out", "--for-training", checkpoint) == 0
    training = json.loads(capsys.readouterr().out.splitlines()[-1])["training"]
    assert training["num_updates"] == STEPS

    run(
        "fairseq-train", tiny_data, "--user-dir", PLUGIN, *training["options"], "--cpu",
        "--streams", "units,speaker", "--restore-file", checkpoint, "--save-dir", tmp_path / "save",
        "--batch-size", "2", "--required-batch-size-multiple", "1", "--segment-size", "2560",
        "--num-workers", "0", "--max-update", str(STEPS + 2), "--disable-validation",
        "--save-interval-updates", "1", "--keep-interval-updates", "5",
    )  # fmt: skip
    state = torch.load(tmp_path / "save" / "checkpoint_last.pt", weights_only=True)
    assert state["optimizer_history"][-1]["num_updates"] == STEPS + 2
    # HiFi-GAN's rate in the epoch after five: 0.999 to the fifth.
    assert state["last_optimizer_state"]["param_groups"][0]["lr"] == pytest.approx(2e-4 * 0.999**5)
    before = torch.load(checkpoint, weights_only=True)
    order = [k for k in before["model"]] + [
        name for name in before["criterion"] if "._u" not in name and "._v" not in name
    ]
    order.remove("_extra_state")
    old, new = before["last_optimizer_state"]["state"], state["last_optimizer_state"]["state"]
    assert len(old) == len(new) == len(order)
    for index, name in enumerate(order):
        assert torch.equal(old[index]["exp_avg"], moments[name]), name
        assert new[index]["step"] == old[index]["step"] + 2 == 4, name
        assert not torch.equal(new[index]["exp_avg"], old[index]["exp_avg"])
    moved = [
        float((state["model"][name] - value).abs().max()) for name, value in before["model"].items()
    ]
    assert 0 < max(moved) < 2e-3  # two small steps from where it was


def test_fairseq_reads_the_checkpoint_alone(original, tiny_data, tmp_path):
    from fairseq import checkpoint_utils

    import fairseq_resynth.tasks  # noqa: F401

    folder, _ = original
    checkpoint = tmp_path / "imported.pt"
    assert do_import(folder, tmp_path / "out", "--for-training", checkpoint) == 0
    models, _, task = checkpoint_utils.load_model_ensemble_and_task([str(checkpoint)])
    assert task.streams.speakers == ("anna", "boris")
    assert models[0].unit_generator.speaker_embedding.num_embeddings == 2


def _shorter(state):
    state["optim_d"]["param_groups"][0]["params"].pop()


def _other_model(state):
    state["optim_g"]["state"][0]["exp_avg"] = torch.zeros(7)


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda state: state.pop("msd"), "is not a file of discriminators .* it lacks msd"),
        (_shorter, "an optimizer of .* parameters, its networks have"),
        (_other_model, "does not belong to the generator"),
        (lambda state: state["mpd"].popitem(), "no HiFi-GAN discriminators"),
    ],
)
def test_wrong_training_state(change, message, original, tmp_path, capsys):
    import re
    import shutil

    folder = tmp_path / "in"
    shutil.copytree(original[0], folder)
    state = torch.load(folder / "do_00000100")
    change(state)
    torch.save(state, folder / "do_00000100")
    assert do_import(folder, tmp_path / "out", "--for-training", tmp_path / "x.pt") == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists() and not (tmp_path / "x.pt").exists()


def test_no_training_state(tmp_path, capsys):
    folder = golden("hubert100_duration_small", tmp_path / "in")
    assert do_import(folder, tmp_path / "out", "--for-training", tmp_path / "x.pt") == 2
    assert "do_00000010 does not exist" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
