"""Every command in the documents, as it stands there but for its scale and the places that stand for a reader's own."""

from __future__ import annotations

import ast
import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import kubernetes_validate
import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from matplotlib.figure import Figure

import forks
import own_data
from bundle_documents import PACKAGED
from bundle_runs import BUNDLES, ROOT, UNETR, read_json, train
from documents import Call, Reader, blocks, small_words
from hosts import ASSETS, github
from medcontext.phantoms.cohort import write_phantoms
from medcontext.report import evaluation_page
from package_bundles import packaged_files
from phantom_layouts import pack_phantoms
from platforms import posix_only
from releases import VERSION, Release
from tracked_runs import Store, table

pytestmark = [
    posix_only,
    pytest.mark.xdist_group("forks"),  # and one reader for all
]

IN_REPOSITORY = [Path("README.md"), Path("bundles", UNETR, "docs", "README.md")]
IN_REPOSITORY += sorted(path.relative_to(ROOT) for path in (ROOT / "shared" / "docs").rglob("*.md"))
IN_PACKAGES = [Path("docs", path) for path in PACKAGED if path.endswith(".md")] + [Path("docs", "README.md")]
# what the tests of the quickstart, of MONAI Label and of MONAI Deploy run
SCRIPTS = {("bash", "ci/quickstart.sh"), ("bash", "ci/quickstart.sh", UNETR, "hippocampus")}
SCRIPTS |= {("bash", "ci/monailabel.sh"), ("bash", "ci/monai_deploy.sh")}
# the network of trial.json, which results/trials.md leaves to its reader
SEGRESNET = {"_target_": "SegResNet", "in_channels": "@in_channels", "out_channels": "@out_channels"}
SLURM = {
    "SLURM_JOB_ID": str(os.getpid()),
    "SLURM_JOB_NODELIST": "127.0.0.1",
    "SLURM_JOB_NUM_NODES": "1",
    "SLURM_GPUS_ON_NODE": "2",
    "SLURM_CPUS_PER_TASK": "2",
}
SRUN = '[ "$1" = --cpus-per-task ] && [ "$3" = --kill-on-bad-exit=1 ] && shift 3 && exec "$@"'


def documents() -> list[object]:
    """The repository's documents, and those of every package, with what takes long, among the slow tests."""
    found: list[object] = []
    for thorough in (False, True):
        marks, suffix = ([pytest.mark.slow], "-thorough") if thorough else ([], "")
        places = [(UNETR, document) for document in IN_REPOSITORY]
        places += [(bundle, document) for bundle in BUNDLES for document in IN_PACKAGES if thorough]
        for bundle, document in places:
            label = f"{bundle}-{document.name}" if document in IN_PACKAGES else document.as_posix()
            found.append(pytest.param(bundle, document, thorough, id=label + suffix, marks=marks))
    return found


@pytest.fixture(scope="module")
def reader_of(
    tmp_path_factory: pytest.TempPathFactory,
    cohort: Path,
    other_cohorts: Callable[[str], Path],
    empty_database: Path,
) -> Iterator[Callable[[str, bool], Reader]]:
    """A reader of a bundle's documents, with everything at hand that they take for granted."""
    with pytest.MonkeyPatch.context() as patch:

        @functools.cache
        def made(bundle: str, thorough: bool) -> Reader:
            folder = tmp_path_factory.mktemp(bundle)
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            patch.setenv("MEDCONTEXT_HOME", str(folder))
            patch.chdir(ROOT)
            prepare(folder, bundle, cohort, empty_database)
            for name in ("acdc", "hippocampus"):
                (folder / "data" / name).symlink_to(other_cohorts(name))
            reader = Reader(folder, bundle, patch, thorough)
            reader.others |= {"torchrun": functools.partial(torchrun, reader), "bash": script}
            reader.others |= {
                "sbatch": functools.partial(sbatch, reader),
                "kubectl": functools.partial(kubectl, reader),
            }
            return reader

        for name in ("draw_planes", "metrics_boxplot", "curves_figure"):  # nobody looks at these reports
            patch.setattr(evaluation_page, name, lambda *_: Figure(figsize=(1, 1)))
        threads = torch.get_num_threads()
        yield made
        torch.set_num_threads(threads)


def prepare(folder: Path, bundle: str, cohort: Path, empty_database: Path) -> None:
    """The repository, BTCV, scans, trained runs, and runs of an experiment."""
    for name in ("bundles", "ci", "shared", "constraints.txt", "pyproject.toml", "README.md", "LICENSE"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "configs").symlink_to(ROOT / "bundles" / bundle / "configs")  # as in the folder of a downloaded bundle
    for name, content in packaged_files(ROOT / "bundles" / bundle).items():
        if name.startswith("docs/"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
    (folder / "data").mkdir()
    (folder / "data" / "btcv").symlink_to(cohort)
    for name in ("mlruns.db", "mlflow.db"):  # of runs here, and of the server
        shutil.copy(empty_database, folder / name)
    for environment in (".venv", ".venv-monailabel", ".venv-monai-deploy"):
        activate = folder / environment / "bin" / "activate"
        activate.parent.mkdir(parents=True)
        activate.touch()
    pack_phantoms(cohort, "btcv_zip", folder / "RawData.zip")
    run = train(bundle, folder, run_name="RUN", max_epochs=1)
    for other in ("A", "B"):
        shutil.copytree(run, run.with_name(other))
    shutil.copy(run / "models" / "model.pt", folder / "student.pt")
    case = json.loads((cohort / "dataset.json").read_text())["test"][0]["image"]
    for shift, name in enumerate(("scan.nii.gz", "SCANS/one.nii.gz", "SCANS/two.nii.gz"), 1):
        (folder / name).parent.mkdir(exist_ok=True)
        image = nib.load(cohort / case)  # each another scan than the test case, as unlabelled ones have to be
        voxels = np.asarray(image.dataobj) + np.int16(shift)
        nib.save(nib.Nifti1Image(voxels, image.affine, image.header), folder / name)
    write_own_data(folder / "data" / "mine")
    own_data.nnunet(folder / "nnUNet_raw" / "Dataset007_X")
    own_data.decathlon(folder / "Task09_Spleen")
    names = [f"{case}.nii.gz" for case in "ab"]
    own_data.two_folders(folder / "ct", names, names)
    (folder / "trial.json").write_text(json.dumps({"network_def": SEGRESNET, "learning_rate": 0.005}))
    store = Store(folder, "study")
    for seed in range(3):
        for mode, dice in (("medcontext", 0.9), ("baseline", 0.8), ("masking_only", 0.7)):
            store.log(mode, table({"liver": [dice, dice + seed / 100]}), seed=seed)


def write_own_data(folder: Path) -> None:
    """The volumes of the README's ``dataset.json``, which is written from there."""
    (content,) = [json.loads(block.text) for block in blocks(ROOT / "README.md") if block.language == "json"]
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps(content))
    label = np.zeros((32, 32, 32), np.uint8)
    label[8:16, 8:24, 8:24], label[16:24, 8:24, 8:24] = 1, 2
    random = np.random.default_rng(0)
    for case in content["training"] + content["test"]:
        image = np.where(label > 0, 60 * label.astype(np.int16), -100) + random.integers(-9, 9, label.shape)
        for name, array in ((case["image"], image.astype(np.int16)), (case["label"], label)):
            nib.save(nib.Nifti1Image(array, np.diag([4.5, 4.5, 6.0, 1.0])), folder / name)


@pytest.mark.parametrize(("bundle", "document", "thorough"), documents())
def test_commands(
    bundle: str,
    document: Path,
    thorough: bool,
    reader_of: Callable[[str, bool], Reader],
    request: pytest.FixtureRequest,
) -> None:
    reader = reader_of(bundle, thorough)
    runs = reader.folder / "runs" / bundle
    shutil.rmtree(runs / "mine", ignore_errors=True)  # README and tutorial each have data of their own
    reader.done = {call for call in reader.done if not any("mine" in str(word) for word in call)}
    with reader.patch.context() as patch, contextlib.ExitStack() as stack:
        patch.chdir(reader.folder)
        patch.setenv("MEDCONTEXT_HOME", str(reader.folder))
        if document.name == "install.md":
            release = request.getfixturevalue("release")
            for name, value in stack.enter_context(on_github(release, reader.folder / "github")).items():
                patch.setenv(name, value)
            patch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of its first use
        reader.read(reader.folder / document, {"/data/": f"{reader.folder}/"})
    if document.name == "tutorial.md":
        assert {path.name for path in (runs / "first" / "predictions").iterdir()} >= {"img0001_seg.nii.gz"}
        assert all((runs / name / "evaluation" / "report.html").is_file() for name in ("first", "mine"))
    if document.name == "how_to.md":
        assert (runs / "study" / "models" / "model.pt").is_file()
        assert read_json(runs / "study" / "train_config.json")["mode"] == "baseline"  # Slurm's job
        assert bool(reader.answers) is thorough
    if document.name == "README.md":
        predictions = runs / ("mine" if document == Path("README.md") else "RUN") / "predictions"
        assert {path.name for path in predictions.iterdir()} >= {"one.json", "two_seg.nii.gz"}
    for answer in reader.answers:
        (row,) = answer["predictions"]
        assert Path(row["prediction"]) == reader.folder / "predictions" / "scan_seg.nii.gz"
        assert Path(row["prediction"]).is_file()


@contextlib.contextmanager
def on_github(release: Release, folder: Path) -> Iterator[dict[str, str]]:
    """The release under the names that install.md gives it, and the environment in which it is found."""
    for place in (f"download/v{VERSION}", "latest/download"):
        path = folder / ASSETS / "OWNER" / "REPO" / "releases" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(release.folder)
    with github(folder, folder / "ca.pem") as (_, _, environment):
        yield environment


@pytest.mark.slow
def test_quickstart(tmp_path: Path) -> None:
    """As a newcomer calls it, at its own scale."""
    variables = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    words = ["bash", "ci/quickstart.sh"]
    subprocess.run(words, cwd=ROOT, env={**variables, "MEDCONTEXT_HOME": str(tmp_path)}, check=True)
    run = tmp_path / "runs" / UNETR / "quickstart"
    assert (run / "evaluation" / "report.html").is_file()
    assert len(list((run / "predictions").glob("*_seg.nii.gz"))) == 12
    assert (run / "preview.png").is_file()


DECATHLON = """
import hashlib, pathlib
from monai.apps import DecathlonDataset
archive = pathlib.Path(__file__).with_name("served.tar")
DecathlonDataset.resource["Task04_Hippocampus"] = archive.as_uri()
if archive.is_file():
    DecathlonDataset.md5["Task04_Hippocampus"] = hashlib.md5(archive.read_bytes()).hexdigest()
"""


@pytest.mark.slow
@pytest.mark.parametrize("reachable", [True, False])
def test_quickstart_takes_real_scans_where_it_can_get_them(tmp_path: Path, reachable: bool) -> None:
    """Up to the training, with another archive in the place of the Decathlon's, or none."""
    if reachable:
        settings = {"dataset": "hippocampus", "size": (24, 32, 24), "spacing": (1.5, 1.5, 1.5)}
        write_phantoms(tmp_path / "cohort", **settings, progress=False)
        pack_phantoms(tmp_path / "cohort", "hippocampus_msd_tar", tmp_path / "served.tar")
    (tmp_path / "sitecustomize.py").write_text(DECATHLON)
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "MEDCONTEXT_HOME": str(tmp_path), "PYTHONPATH": paths}
    words = ["bash", "ci/quickstart.sh", UNETR, "hippocampus"]
    with subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        said = []
        for line in process.stdout or ():
            said.append(line)
            if line.startswith("== 2/4"):
                break
        os.killpg(process.pid, signal.SIGKILL)
    assert said[-1].startswith("== 2/4"), said
    assert any("generated ones take their place" in line for line in said) is not reachable
    name = "hippocampus" if reachable else "hippocampus_phantoms"
    content = json.loads((tmp_path / "data" / name / "dataset.json").read_text())
    assert [len(content[part]) for part in ("training", "test", "unlabeled")] == [200, 60, 130]
    assert ("prepared" in content) is reachable
    assert (tmp_path / "runs" / UNETR / f"quickstart_{name}" / "crops.png").is_file()


def torchrun(reader: Reader, call: Call) -> None:
    """Start ``torchrun``, or what it starts."""
    at = call.words.index("-m") + 2
    words = [*call.words[1:at], *small_words(reader.bundle, call.words[at:])]
    if reader.thorough:
        subprocess.run([sys.executable, "-m", "torch.distributed.run", *words], cwd=call.folder, check=True)
    else:
        processes = int(words[words.index("--nproc_per_node") + 1])
        with contextlib.chdir(call.folder):
            forks.torchrun(processes, words[at - 3 :], reader.folder / "torchrun.log")


def script(call: Call) -> None:
    assert call.words in SCRIPTS
    assert (ROOT / call.words[1]).is_file()


def sbatch(reader: Reader, call: Call) -> None:
    """Slurm's part: start the script on the first of the nodes, which it tells what there is."""
    (path,) = [word for word in call.words if word.endswith(".sh")]
    (exported,) = [word.removeprefix("--export=ALL,") for word in call.words if word.startswith("--export=ALL,")]
    variables = dict(pair.split("=") for pair in exported.split(","))
    words = [path, *call.words[call.words.index(path) + 1 :]]
    started = started_by(reader, reader.folder, words, {**SLURM, **variables})
    assert [Path(file).stem for file in config_files_of(started)] == [
        "train",
        *variables["OVERLAYS"].split(),
        "auto_resume",
        "multi_gpu_train",
    ]
    torchrun(reader, started)


def kubectl(reader: Reader, call: Call) -> None:
    """Kubernetes' part: check the objects, and start the container's command with its variables."""
    (path,) = [word for word in call.words if word.endswith(".yaml")]
    service, job = yaml.safe_load_all((reader.folder / path).read_text())
    for content in (service, job):
        kubernetes_validate.validate(content, "1.31", strict=True)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    assert variables["MASTER_ADDR"] == f"{job['metadata']['name']}-0.{job['spec']['template']['spec']['subdomain']}"
    assert variables["MASTER_ADDR"].endswith(f".{service['metadata']['name']}")
    assert int(variables["MASTER_PORT"]) == service["spec"]["ports"][0]["port"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert int(variables["NNODES"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert int(variables["NPROC_PER_NODE"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    here = {"NNODES": "1", "NPROC_PER_NODE": "2", "JOB_COMPLETION_INDEX": "0", "RUN_NAME": "kubernetes"}
    here |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(reader.port), "MEDCONTEXT_HOME": str(reader.folder)}
    words = [*container["command"][1:], *container["args"]]
    started = started_by(reader, ROOT / "bundles" / reader.bundle, words, {**variables, **here})
    assert [Path(file).stem for file in config_files_of(started)] == ["train", "auto_resume", "multi_gpu_train"]
    assert started.words[:7] == ("torchrun", "--nnodes", "1", "--node_rank", "0", "--nproc_per_node", "2")
    if reader.thorough:  # quick tests have run Slurm's
        torchrun(reader, started)


def config_files_of(call: Call) -> list[str]:
    return list(ast.literal_eval(call.words[call.words.index("--config_file") + 1]))


def started_by(reader: Reader, folder: Path, words: list[str], variables: dict[str, str]) -> Call:
    """What a script starts, where a cluster's own programs are at hand."""
    programs = reader.folder / "cluster"
    programs.mkdir(exist_ok=True)
    for name, text in (("scontrol", 'echo "$SLURM_JOB_NODELIST"'), ("srun", SRUN)):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    (call,) = reader.noted(words, folder, {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", **variables})
    return call
