#!/usr/bin/env bash
# Install MONAI Label and this package into an environment of its own, .venv-monailabel (several minutes and gigabytes).
# Then bin/monailabel in it starts the server; how_to.md says how.
# MONAI Label is installed without the packages that it asks for, since pydicom-seg 0.4.1 asks for an older NumPy than
# MONAI's. Left out, because neither the server nor its app for bundles imports them: sam2, ninja, httpx, expiringdict,
# and MONAI's own extras.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=0.8.5 venv=.venv-monailabel
stamp=$venv/.installed-$version-$(cat pyproject.toml constraints.txt ci/monailabel.sh | cksum | tr ' ' '-')
[ ! -f "$stamp" ] || exit 0
echo "Installing MONAI Label $version into $venv ..."
"${PYTHON:-python3}" -m venv "$venv"
pip=("$venv/bin/pip" install --quiet)
torch=$(sed -n 's/^torch==//p' constraints.txt)
# === leaves out builds such as +cpu, to which PyPI's torchvision does not fit
"${pip[@]}" "torch===$torch" torchvision
"${pip[@]}" -c constraints.txt -e .
"${pip[@]}" --no-deps "monailabel==$version" pydicom-seg==0.4.1 numpymaxflow
# pydicom-seg needs pydicom 2, and so do the versions of what reads DICOM beside it
"${pip[@]}" "pydicom<3" "dicomweb-client[gcp]>=0.59.1,<0.60" "pynetdicom<3" SimpleITK itk jsonschema \
    bcrypt cachetools expiring_dict fastapi girder-client passlib pydantic-settings pyjwt pynrrd python-dotenv \
    python-multipart requests-toolbelt schedule shapely timeloop uvicorn watchdog
"$venv/bin/python" -c 'import monailabel.app, monailabel.interfaces.app, monailabel.tasks.infer.bundle'
touch "$stamp"
