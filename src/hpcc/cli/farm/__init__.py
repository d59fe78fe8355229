"""Commands about farms: a farm on this machine, logins, services and their operation.

`supervise` is the process that `hpcc up` leaves running. It writes the services' configuration and
contains no service.
"""
