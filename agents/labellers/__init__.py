"""Labellers that have learnt to read: what they see of a request, what comes out, and their weights."""
