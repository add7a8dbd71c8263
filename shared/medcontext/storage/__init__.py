"""Files: written atomically, remembered by content, transferred, unpacked and downloaded."""
