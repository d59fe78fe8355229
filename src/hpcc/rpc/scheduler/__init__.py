"""The scheduler's services and their clients: routes, registration, heartbeats, audit."""
