"""Engines that are not of hpcc, and workers that are their bots."""
