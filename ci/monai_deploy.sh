#!/usr/bin/env bash
# Install the MONAI Deploy App SDK and this package into an environment of its own, .venv-monai-deploy (several minutes
# and gigabytes). Its operators need no GPU to be tried.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=4.0.0 venv=.venv-monai-deploy
stamp=$venv/.installed-$version-$(cat pyproject.toml constraints.txt ci/monai_deploy.sh | cksum | tr ' ' '-')
[ ! -f "$stamp" ] || exit 0
echo "Installing the MONAI Deploy App SDK $version into $venv ..."
"${PYTHON:-python3}" -m venv "$venv"
pip=("$venv/bin/pip" install --quiet)
"${pip[@]}" -c constraints.txt -e ".[dicom]"
# without the packages that it asks for: Triton's client asks for an older ml-dtypes; holoscan's for CuPy, which only
# operators on a GPU import
"${pip[@]}" --no-deps "monai-deploy-app-sdk==$version" holoscan-cu13 "wheel-axle-runtime<1" holoscan-cli tritonclient
"${pip[@]}" "cloudpickle<4" colorama typeguard aiohttp gevent geventhttpclient python-rapidjson
"$venv/bin/python" -c 'import holoscan' || "$venv/bin/python" -c 'import holoscan' # its libraries are linked by the first
"$venv/bin/python" -W ignore -c 'import monai.deploy.operators'
touch "$stamp"
