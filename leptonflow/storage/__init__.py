"""The object store: its verbs over a directory, S3 or memory, the commit log, the run lock.

What the objects mean does not belong here.
"""
