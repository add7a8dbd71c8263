"""Files: whole or not at all, remembered by content, transferred, unpacked and fetched."""
