"""The tests of the old plugin run where it is installed, by themselves."""

collect_ignore = ["stillhouse-steady"]
