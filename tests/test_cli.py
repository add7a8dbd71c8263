from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib import image as mpl_image
from mlflow import MlflowClient
from mlflow.entities import RunStatus
from monai.networks.nets import UNETR

import downloads
import own_data
from bundle_runs import TINY, workflow_for
from golden_values import FLOAT32_TOLERANCE, filled_state, golden_input, worst_deviation
from medcontext import cli
from medcontext.networks import NNFormer, load_weights
from medcontext.tracking import unsent
from medcontext.tracking.operations import metrics_operations, status_operation
from medcontext.tracking.unsent import unsent_file
from platforms import posix_only

ROOT = Path(__file__).parents[1]
CONFIG = str(ROOT / "bundles" / "medcontext_unetr" / "configs" / "train.json")


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["medcontext", *words])
    cli.main()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    cli.phantoms(str(folder), num_cases=3, size=(32, 32, 32), spacing=(4.5, 4.5, 6.0))
    return folder


def test_phantoms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    call(monkeypatch, "phantoms", "--output_dir", str(tmp_path), "--num_cases", "2", "--size", "[32,32,32]")
    assert capsys.readouterr().out.strip() == str(tmp_path / "dataset.json")
    assert json.loads((tmp_path / "dataset.json").read_text())["phantom"]["size"] == [32, 32, 32]


def test_a_seed_of_no_whole_number_is_reported_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"^medcontext: seed must be an integer, got 1.5: give another whole number"):
        call(monkeypatch, "phantoms", "--output_dir", str(tmp_path / "new"), "--seed", "1.5")


def test_a_programming_error_of_a_command_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsent, "send_kept", len)
    with pytest.raises(TypeError, match=r"len\(\)"):
        call(monkeypatch, "send_unsent", "--ckpt_dir", "models")


def test_ctrl_c_ends_a_command_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(unsent, "send_kept", interrupted)
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, "send_unsent", "--ckpt_dir", "models")
    assert end.value.code == 130
    assert capsys.readouterr().err == "medcontext: interrupted; the same command resumes, or starts again.\n"


@posix_only
def test_sigterm_ends_a_command_as_ctrl_c_does(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(unsent, "send_kept", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr(sys, "argv", ["medcontext", "send_unsent", "--ckpt_dir", "models"])
    try:
        with pytest.raises(SystemExit) as end:
            runpy.run_module("medcontext", run_name="__main__")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert end.value.code == 143


def test_check_of_a_sound_dataset(
    cohort: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "check", "--dataset_dir", str(cohort))
    assert "2 training, 0 validation, 1 test cases, no problems found" in capsys.readouterr().out


def test_check_lists_all_problems_in_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.phantoms(str(tmp_path), num_cases=3, size=(32, 32, 32))
    labels = sorted((tmp_path / "Training" / "label").iterdir())
    labels[0].unlink()
    nib.save(nib.Nifti1Image(np.full((32, 32, 32), 99, np.uint8), nib.load(labels[1]).affine), labels[1])
    capsys.readouterr()
    with pytest.raises(SystemExit) as refusal:
        call(monkeypatch, "check", "--dataset_dir", str(tmp_path))
    assert refusal.value.code == 1
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["case", "section", "problem"]
    assert sorted(line.split()[:2] for line in lines) == [["img0001", "test"], ["img0005", "training"]]
    with pytest.raises(SystemExit):
        call(monkeypatch, "check", "--dataset_dir", str(tmp_path), "--voxels", "False")
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_prepare_and_compare_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = downloads.zipped(downloads.btcv(tmp_path / "download"), tmp_path / "RawData.zip")
    words = ["prepare", "--dataset", "btcv", "--source", str(archive), "--output_dir", str(tmp_path / "btcv")]
    call(monkeypatch, *words)
    assert capsys.readouterr().out.strip() == str(tmp_path / "btcv" / "dataset.json")
    call(monkeypatch, "check", "--dataset_dir", str(tmp_path / "btcv"), "--hashes", "True")
    assert "18 training, 0 validation, 12 test cases, no problems found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("nnunet", ["--source", "nnunet", "--test_cases", "1"]),
        ("decathlon", ["--source", "decathlon", "--test_cases", "1"]),
        (
            "folder",
            [
                *("--images", "folder/images", "--labels", "folder/labels", "--modality", "T1,FLAIR"),
                *("--label_names", '{"liver": 1, "spleen": 3}', "--test_cases", "1"),
            ],
        ),
    ],
)
def test_ones_own_data_is_prepared_and_checked(
    form: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if form == "nnunet":
        own_data.nnunet(tmp_path / form, channels=2)
    elif form == "decathlon":
        own_data.decathlon(tmp_path / form)
    else:
        images = [f"{case}_{channel:04d}.nii.gz" for case in "abc" for channel in range(2)]
        own_data.two_folders(tmp_path / form, images, [f"{case}_seg.nii.gz" for case in "abc"])
    call(monkeypatch, "prepare", "--dataset", form, "--output_dir", "out", *words)
    assert capsys.readouterr().out == "out/dataset.json\n".replace("/", os.sep)
    call(monkeypatch, "check", "--dataset_dir", "out")
    unlabeled = {"nnunet": ", 2 unlabeled", "decathlon": ", 1 unlabeled", "folder": ""}[form]
    assert f"2 training, 0 validation, 1 test{unlabeled} cases, no problems found" in capsys.readouterr().out


def test_mistakes_in_ones_own_data_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "medcontext: There is no folder .*absent; give the folder of the images as --images"
    with pytest.raises(SystemExit, match=message):
        call(
            monkeypatch,
            *("prepare", "--dataset", "folder", "--images", str(tmp_path / "absent"), "--labels", "labels"),
            *("--modality", "CT", "--output_dir", str(tmp_path / "out")),
        )


def test_a_list_of_what_is_wrong_keeps_its_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = {"image": "\x1b.nii", "label": "b.nii"}
    content = {"labels": {"1": "spleen"}, "modality": {"0": "CT"}, "training": [case]}
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "dataset.json").write_text(json.dumps(content))
    folders = ("--source", str(tmp_path / "task"), "--output_dir", str(tmp_path / "out"))
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, "prepare", "--dataset", "decathlon", *folders)
    assert "\n  a training case lacks \\x1b.nii, b.nii\n" in str(end.value.code)


def test_preview_draws_crops(cohort: Path, tmp_path: Path) -> None:
    cli.preview(
        CONFIG,
        output=str(tmp_path / "preview.png"),
        num_cases=2,
        dataset_dir=str(cohort),
        validation_cases=0,
        spacing=[4.5, 4.5, 6.0],
        roi_size=[32, 32, 32],
    )
    picture = mpl_image.imread(tmp_path / "preview.png")
    assert picture.shape[0] > 200
    assert picture.std() > 0.05


def test_preview_of_plain_training(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = f"['{CONFIG}','{CONFIG.replace('train.json', 'baseline.json')}']"
    words = ["--dataset_dir", str(cohort), "--validation_cases", "0", "--roi_size", "[32,32,32]"]
    with pytest.raises(SystemExit, match="This configuration drops nothing; preview it without baseline.json"):
        call(monkeypatch, "preview", "--config_file", files, "--output", str(tmp_path / "x.png"), *words)


# --- published weights ---

NETWORK = {key: value for key, value in TINY["medcontext_unetr"].items() if key.startswith("network_def#")}
NETWORK["network_def#img_size"] = [32, 32, 32]
NETWORK_WORDS = [word for key, value in NETWORK.items() for word in (f"--{key}", str(value).replace(" ", ""))]


@pytest.fixture
def without_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDCONTEXT_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def published(without_data: Path) -> Path:
    torch.manual_seed(7)
    arguments = {key.removeprefix("network_def#"): value for key, value in NETWORK.items()}
    state = UNETR(1, 14, **arguments).state_dict()
    renamed = {key.removeprefix("vit."): value for key, value in state.items() if ".norm_cross_attn." not in key}
    torch.save({"epoch": 5000, "best_acc": 70.0, "state_dict": renamed}, without_data / "student_5000.pt")
    return without_data / "student_5000.pt"


def test_converted_weights_of_unetr_are_what_evaluation_loads(
    published: Path, without_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = without_data / "models" / "model.pt"
    words = ["--source", str(published), "--config_file", CONFIG, "--output", str(output), *NETWORK_WORDS]
    call(monkeypatch, "convert_weights", *words)
    printed = capsys.readouterr().out
    assert "tensors loaded" in printed
    assert printed.endswith(f"{output}\n")
    monkeypatch.chdir(ROOT)
    workflow = workflow_for("medcontext_unetr", "train", "evaluate", ckpt_dir=str(output.parent))
    state, own = torch.load(published)["state_dict"], workflow.parser.get_parsed_content("network").state_dict()
    assert torch.equal(own["vit.norm.weight"], state["norm.weight"])
    assert torch.equal(own["out.conv.conv.weight"], state["out.conv.conv.weight"])
    with pytest.raises(SystemExit, match=f"medcontext: {output} exists; choose another output"):
        call(monkeypatch, "convert_weights", *words)


def test_converted_weights_of_nnformer(without_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = str(without_data / "model_final.model"), str(without_data / "model.pt")
    weights = filled_state("nnformer_synapse_tiny")
    best = np.float64(0.8)
    torch.save({"student_state_dict": weights, "teacher_state_dict": dict(weights), "best": best}, source)
    size = {"img_size": [32, 64, 64], "embed_dim": 24, "num_heads": [3, 6, 12, 24]}
    arguments = {"in_channels": 1, "out_channels": 5, **size}
    definition = repr({"_target_": "medcontext.networks.NNFormer", **arguments})
    words = ["--source", source, "--config_file", CONFIG, "--output", output, "--network_def", definition]
    with pytest.raises(SystemExit, match="2 networks; choose one by entry: student_state_dict or teacher_state_dict"):
        call(monkeypatch, "convert_weights", *words)
    call(monkeypatch, "convert_weights", *words, "--entry", "student_state_dict")
    network = load_weights(NNFormer(**arguments), output).eval()
    network.always_return_list = True
    with torch.no_grad():
        outputs = network(golden_input("nnformer_synapse_tiny"))
    assert worst_deviation(outputs, "nnformer_synapse_tiny") < FLOAT32_TOLERANCE


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--network_deff", "1"], "Nothing in the configuration uses 'network_deff'. Did you mean 'network_def'"),
        (["--network_def#hidden_size", "25"], "network_def: hidden.size should be divisible by num_heads"),
        (["--network_def#hidden_size", "36"], r"this UNETR differ in .* trained with hidden_size 24 \(here 36\)"),
        (["--out_channels", "4"], r"this UNETR differ in .* trained with out_channels 14 \(here 4\)"),
        (["--strict", "no"], "strict must be True or False, got 'no'"),
        (["--entry", "teacher"], "no weights under entry 'teacher', only under state_dict"),
        (["--source", "absent.pt"], "There is no checkpoint absent.pt"),
        (["--output", "student_5000.pt/model.pt"], "Not a directory|File exists"),
    ],
)
def test_mistakes_in_converting_write_nothing(
    words: list[str], message: str, published: Path, without_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(without_data)
    given = ["--source", str(published), "--config_file", CONFIG, *NETWORK_WORDS]
    with pytest.raises(SystemExit, match=f"^medcontext: .*({message})"):
        call(monkeypatch, "convert_weights", *given, *words)
    assert list(without_data.iterdir()) == [published]


def test_sending_what_mlflow_did_not_take(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient(uri)
    run_id = client.create_run("0").info.run_id
    operations = [*metrics_operations([("train_loss", 0.5, 1000, 7)]), status_operation(RunStatus.FINISHED)]
    lines = [{"run_id": run_id, "tracking_uri": uri}, *operations]
    path = unsent_file(tmp_path, run_id)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    monkeypatch.setenv("MEDCONTEXT_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(SystemExit, match=f"trust that address, give it: --tracking_uri {uri}$"):
        call(monkeypatch, "send_unsent", "--ckpt_dir", str(tmp_path))
    monkeypatch.setenv("MEDCONTEXT_HOME", str(tmp_path))  # whose database the run was logged to
    call(monkeypatch, "send_unsent", "--ckpt_dir", str(tmp_path))
    assert capsys.readouterr().out.splitlines()[-1] == "2 records sent to MLflow"
    run = client.get_run(run_id)
    assert (run.data.metrics, run.info.status) == ({"train_loss": 0.5}, "FINISHED")
    assert not path.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["phantoms", "--output_dir", "x", "--dataset", "lits"], "dataset must be one of"),
        (["prepare", "--dataset", "btcv", "--source", "absent", "--output_dir", "x"], "There is no absent; give"),
        (["check", "--dataset_dir", "absent"], "There is no absent/dataset.json"),
        (["send_unsent", "--ckpt_dir", "absent"], "There is no folder absent"),
    ],
)
def test_mistakes_are_reported_in_one_sentence(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f"medcontext: {message}"):
        call(monkeypatch, *words)
