"""Other people's file formats: bytes to plain dicts and arrays and back, one file each."""
