"""What INPUT names: files, folders, addresses, several of them, as the rows of one reader."""
