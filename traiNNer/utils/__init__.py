"""Helpers that every layer may use; they import nothing of ours above this folder."""
