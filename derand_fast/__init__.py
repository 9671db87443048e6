"""Derandomized structure discovery."""
