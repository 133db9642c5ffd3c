"""Sending requests, with limits and retries."""
