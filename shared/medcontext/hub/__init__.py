"""Collections of bundles, and downloads from them."""
