"""Collections of bundles, and what is downloaded from them."""
