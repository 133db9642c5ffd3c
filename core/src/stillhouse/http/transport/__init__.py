"""Requests that are sent as often as it takes, within limits."""
