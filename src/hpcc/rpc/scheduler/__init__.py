"""The scheduler's services and their clients: routes, registration, heartbeats, audit.

`api` defines the values that both ends use. The scheduler's decisions are in `hpcc.scheduler`.
"""
