"""The worker as a bot of a foreign engine: it takes leases in place of calls of hpcc's clients.

An engine is not trusted with more than to choose what runs: every byte of it is bounded and checked
against its digest, each action runs in a guest as hpcc's own compiles do, and no result leaves
before its audit row is durable. What an engine alone knows, such as whose action it is, no row
states.
"""
