"""Imports a name that its library does not have."""

from json import a_name_that_json_lacks

BrokenLLM = a_name_that_json_lacks
