"""Commands about farms: a farm on this machine, logins, services and their operation."""
