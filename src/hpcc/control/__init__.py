"""What the schedulers of a farm know together: embedded for one, PostgreSQL for several."""
