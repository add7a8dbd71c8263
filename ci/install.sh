# shellcheck shell=bash
# Sourced by the other scripts: makes .venv in the repository and installs the package into it, once.
# Usage: install_medcontext EXTRA   (EXTRA: "" or "dev")
#        install_browser            where Debian's package may be installed without asking: on a machine of CI

install_medcontext() {
    local extra=${1:-} python=${PYTHON:-python3} target=".${1:+[$1]}" stamp version
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        { echo "MedContext needs Python 3.11 or newer; set PYTHON to one, this is $("$python" -V)." >&2; return 1; }
    stamp=$(cat pyproject.toml constraints.txt ci/install.sh | cksum | tr ' ' '-')
    if [ -f ".venv/.installed-$stamp-dev" ] || [ -f ".venv/.installed-$stamp-$extra" ]; then
        return 0
    fi
    echo "Installing into .venv (a few minutes the first time) ..."
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    version=$(sed -n 's/^torch==//p' constraints.txt)
    if [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1 && ! .venv/bin/python -c 'import torch' 2>/dev/null; then
        # PyPI's Linux build brings gigabytes of CUDA, which a machine without a GPU has no use for
        if .venv/bin/python -c 'import urllib.request as u; u.urlopen("https://download.pytorch.org/whl/cpu/", timeout=10)' 2>/dev/null; then
            .venv/bin/pip install --quiet "torch==$version" --index-url https://download.pytorch.org/whl/cpu
        fi
    fi
    .venv/bin/pip install --quiet -c constraints.txt "torch==$version" -e "$target"
    touch ".venv/.installed-$stamp-$extra"
}

install_browser() {
    local name
    for name in chromium chromium-browser google-chrome microsoft-edge; do
        command -v "$name" >/dev/null 2>&1 && return 0
    done
    if [ -n "${CI:-}" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "Installing Chromium ..."
        { apt-get update && apt-get install --yes --no-install-recommends chromium; } >/dev/null 2>&1 ||
            echo "Chromium could not be installed; the tests in a browser are skipped." >&2
    fi
}
