"""Sends spans and log records to a collector of OpenTelemetry, with the standard library only.

The problem: two parts send. A service sends security events, and a user's daemon or command sends
the builds that were recorded. The first has an event loop that must not wait, and the second is
installed without any package.

The rule: OTLP over HTTP with binary protobuf, which every collector and vendor takes (not each one
takes JSON). hpcc needs about thirty fields of a schema whose numbers never change, so `protobuf`
writes them, and tests parse every byte with the official definitions. `messages` has the records,
`target` the address of a config file, `sender` one request, `export` the queue of a service.

What must never happen: somebody waits for a collector; an answer of a collector costs memory or
time without a limit, or leads to another address; a header with a secret goes to a host that its
file was not configured for.
"""
