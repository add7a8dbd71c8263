#!/usr/bin/env bash
# Put a model_info.json where MONAI looks for the list of a collection, models/model_info.json of a branch, for
#     get_all_bundles_list(repo="OWNER/REPO", tag="listing")
# The branch "listing" holds nothing else, and is made the first time.
# Usage: ci/publish_listing.sh dist/model_info.json
set -euo pipefail
if [ $# -ne 1 ] || [ ! -f "$1" ]; then
    sed -n 's/^# Usage/usage/p' "${BASH_SOURCE[0]}" >&2
    exit 1
fi
listing=$(git hash-object -w "$1")
models=$(printf '100644 blob %s\tmodel_info.json\n' "$listing" | git mktree)
tree=$(printf '040000 tree %s\tmodels\n' "$models" | git mktree)
parent=$(git ls-remote origin refs/heads/listing | cut -f 1)
if [ -n "$parent" ]; then
    git fetch --quiet origin "$parent"
fi
commit=$(git commit-tree "$tree" ${parent:+-p "$parent"} -m "List the bundles")
git push --quiet origin "$commit:refs/heads/listing"
