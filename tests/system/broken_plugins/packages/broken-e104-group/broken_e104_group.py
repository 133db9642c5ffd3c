"""Nothing here may be imported, for the name cannot be used."""

raise SystemExit("imported")
