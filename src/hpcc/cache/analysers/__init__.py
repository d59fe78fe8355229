"""Runs of analysers on a farm: what is sent for one, and what its report must not show.

An analyser makes no file. What counts is its report, which names files by absolute paths and is
filtered by them. So the project has the path of this machine in the guest, below `/src`, and a run
whose report could depend on the difference stays here.
"""
